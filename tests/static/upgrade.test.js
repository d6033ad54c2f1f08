"use strict";

const {assert, cursor, envelope, scenario} = require("./world.js");

const MINUTE = 60000;
const QUIET = {heartbeat: 1e6}; // no watchdog

/** A tab that has fallen back to the event stream, 2.5 s after the world began. */
async function onEventStream(world, options) {
  const tab = world.openAlone({cursor: cursor(1), ...options});
  await world.pass(2500);
  world.last("eventsource").works(cursor(1), QUIET);
  return tab;
}

/** Minutes at which a transport was connected to. */
function tries(world, transport) {
  return world.connections.filter((each) => each.transport === transport).map(({time}) => time / MINUTE);
}

function refusing(world, transport) {
  world.onconnect = (connection) => {
    if (connection.transport === transport) world.later(0, () => connection.end());
  };
}

scenario("on a fallback, WebSocket is tried again after 1 min, 5 min, and then every 30 min", async (world) => {
  refusing(world, "websocket");
  const tab = world.openAlone();
  await world.pass(0);
  world.last("eventsource").works(cursor(1), QUIET);
  await world.pass(100 * MINUTE);
  assert.deepEqual(tries(world, "websocket"), [0, 1, 6, 36, 66, 96]);
  assert.deepEqual([tries(world, "eventsource"), tab.states], [[0], ["open eventsource"]]);
});

scenario("the switch loses nothing and repeats nothing", async (world) => {
  const tab = await onEventStream(world);
  world.last("eventsource").tell(envelope(2));
  await world.pass(MINUTE);
  world.last("eventsource").tell(envelope(3), envelope(4));
  assert.deepEqual([world.using, world.last("websocket").query.cursor], [["eventsource", "websocket"], cursor(2)]);
  world.last("websocket").works(cursor(2)).tell(envelope(3), envelope(4), envelope(5));
  assert.deepEqual([tab.data, world.using], [[2, 3, 4, 5], ["websocket"]]);
  assert.deepEqual(tab.states, ["open eventsource", "open websocket"]);
  assert.equal(tab.reasons[1], "websocket works again");
});

scenario("a try that delivers nothing leaves the connection in use alone", async (world) => {
  const tab = await onEventStream(world);
  await world.pass(MINUTE + 9000);
  assert.deepEqual(world.using, ["eventsource", "websocket"]);
  await world.pass(1000);
  world.last("eventsource").tell(envelope(2));
  assert.deepEqual([world.using, tab.data, tab.states], [["eventsource"], [2], ["open eventsource"]]);
});

scenario("from the long-poll the event stream is a step up, and WebSocket is tried on", async (world) => {
  refusing(world, "websocket");
  const tab = world.openAlone();
  await world.pass(2500);
  world.last("longpoll").works(cursor(1));
  while (world.now < MINUTE) {
    await world.pass(20000);
    world.last("longpoll").answer({cursor: cursor(1), messages: []});
  }
  world.last("eventsource").works(cursor(1), QUIET);
  assert.deepEqual([world.using, tab.states], [["eventsource"], ["open longpoll", "open eventsource"]]);
  await world.pass(300 * MINUTE);
  assert(tries(world, "websocket").length > 8);
});

scenario("the browser's `online` makes it try at once", async (world) => {
  const tab = await onEventStream(world);
  await world.pass(10000);
  tab.happens("online");
  world.last("websocket").works(cursor(1));
  assert.deepEqual([tab.states, world.using], [["open eventsource", "open websocket"], ["websocket"]]);
});

scenario("connections that end by plan do not put the next try off", async (world) => {
  await onEventStream(world);
  while (world.now < MINUTE) {
    await world.pass(20000);
    world.last("eventsource").rotate(cursor(1), 100);
    await world.pass(100);
    world.last("eventsource").works(cursor(1), QUIET);
  }
  await world.pass(10000);
  assert.equal(tries(world, "websocket").length, 2);
});

scenario("one that had worked on this page is tried again after 5 s, and then as usual", async (world) => {
  world.openAlone();
  world.last("websocket").works(cursor(1), QUIET);
  await world.pass(MINUTE);
  world.last("websocket").ping(cursor(1));
  refusing(world, "websocket");
  world.last("websocket").end();
  await world.pass(250); // and now the event stream
  world.last("eventsource").works(cursor(1), QUIET);
  await world.pass(10 * MINUTE);
  const since = world.last("eventsource").time / MINUTE;
  const waits = tries(world, "websocket").map((minute) => Math.round((minute - since) * MINUTE));
  assert.deepEqual(waits.slice(1), [0, 5000, 5000 + MINUTE, 5000 + 6 * MINUTE]);
});

scenario("what had worked is tried again after 5 s, however far away the next planned try is", async (world) => {
  refusing(world, "websocket");
  world.openAlone();
  await world.pass(0);
  world.last("eventsource").works(cursor(1), QUIET);
  await world.pass(10 * MINUTE); // the next try of WebSocket is in 26
  world.last("eventsource").end();
  await world.pass(250 + 2500); // the event stream says nothing, and here is the long-poll
  world.last("longpoll").works(cursor(1));
  const before = tries(world, "eventsource").length;
  await world.pass(5000);
  assert.equal(tries(world, "eventsource").length, before + 1);
});

scenario("a WebSocket that again and again delivers and dies at once is tried less and less", async (world) => {
  const tab = await onEventStream(world);
  world.onconnect = (connection) => world.later(10, () => {
    connection.works(cursor(1), QUIET);
    if (connection.transport === "websocket") world.later(10, () => connection.end());
  });
  await world.pass(60 * MINUTE);
  assert(tries(world, "websocket").length < 8, String(tries(world, "websocket")));
  world.last("eventsource").tell(envelope(2));
  assert.deepEqual(tab.data, [2]);
});

for (const happens of ["delivers", "says nothing", "fails"]) {
  scenario(`when the connection in use is lost during a try, and that ${happens}, it is soon back`, async (world) => {
    const tab = await onEventStream(world);
    await world.pass(MINUTE);
    world.last("eventsource").end();
    if (happens === "delivers") world.last("websocket").works(cursor(1));
    if (happens === "fails") world.last("websocket").end();
    await world.pass(500);
    if (happens !== "delivers") world.last("eventsource").works(cursor(1));
    world.live.at(-1).tell(envelope(2));
    assert.deepEqual([tab.data, world.live.length, tab.subscription.state], [[2], 1, "open"]);
  });
}

scenario("after `online` all is open again: who was demoted too, and the times between tries", async (world) => {
  const tab = await onEventStream(world);
  world.onconnect = (connection) => world.later(10, () => {
    if (connection.transport === "eventsource") connection.works(cursor(1), QUIET);
    else connection.works(cursor(1), QUIET).end();
  });
  await world.pass(20 * MINUTE);
  world.onconnect = () => {};
  tab.happens("online");
  assert.deepEqual(world.using, ["eventsource", "websocket"]);
  world.last("websocket").end();
  world.last("eventsource").works(cursor(1), QUIET);
  assert.deepEqual([await world.untilNext(), await world.untilNext()], [5000, 10000 + MINUTE]);
});

scenario("once WebSocket has held, the times between tries begin anew", async (world) => {
  await onEventStream(world);
  await world.pass(MINUTE + 10000 + 5 * MINUTE); // the first try fails
  world.last("websocket").works(cursor(1), QUIET);
  await world.pass(2000);
  world.last("websocket").ping(cursor(1));
  refusing(world, "websocket");
  world.last("websocket").end();
  await world.pass(250);
  world.last("eventsource").works(cursor(1), QUIET);
  const waits = [await world.untilNext(), await world.untilNext(), await world.untilNext()];
  assert.deepEqual(waits, [5000, MINUTE, 5 * MINUTE]);
});

scenario("when it is back on the best before a try was due, there is none", async (world) => {
  const tab = world.openAlone();
  world.last("websocket").works(cursor(1), QUIET);
  world.last("websocket").end();
  await world.pass(250 + 2500);
  world.last("eventsource").works(cursor(1), QUIET);
  tab.happens("online");
  world.last("websocket").works(cursor(1), QUIET);
  const {length} = world.connections;
  await world.pass(300 * MINUTE);
  assert.equal(world.connections.length, length);
});

scenario("nor when a loss has brought it back to the best", async (world) => {
  await onEventStream(world);
  await world.pass(2000);
  world.last("eventsource").end();
  await world.pass(250 + 2500);
  world.last("websocket").works(cursor(1), QUIET);
  await world.pass(300 * MINUTE);
  assert.deepEqual([tries(world, "websocket").length, world.using], [2, ["websocket"]]);
});

scenario("`upgradeAfter: []` means never", async (world) => {
  await onEventStream(world, {upgradeAfter: []});
  await world.pass(300 * MINUTE);
  assert.equal(world.connections.length, 2);
});
