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

scenario("what had worked is tried again after 5 s, however far away the next try of anything better is", async (world) => {
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

scenario("when the connection in use is lost during a try, the try goes on for both", async (world) => {
  const tab = await onEventStream(world);
  await world.pass(MINUTE);
  world.last("eventsource").end();
  assert.equal(tab.subscription.state, "connecting");
  world.last("websocket").works(cursor(1)).tell(envelope(2));
  assert.deepEqual([tab.data, world.using], [[2], ["websocket"]]);
});

scenario("when both the connection in use and the try fail, it comes back as after any loss", async (world) => {
  const tab = await onEventStream(world);
  await world.pass(MINUTE);
  world.last("eventsource").end();
  world.last("websocket").end();
  assert.equal(tab.subscription.state, "waiting");
  await world.pass(500);
  world.last("eventsource").works(cursor(1)).tell(envelope(2));
  assert.deepEqual(tab.data, [2]);
});
