"use strict";

const {assert, cursor, envelope, scenario, storage, throwing} = require("./world.js");

const MINUTE = 60000;

/** The transport that the world's next tab tries first. */
function first(world, options) {
  const {length} = world.connections;
  world.openAlone(options).subscription.close();
  return world.connections[length].transport;
}

scenario("WebSocket starts at once, the event stream beside it after 2.5 s, the long-poll after 5 s", async (world) => {
  world.openAlone();
  await world.pass(6000);
  assert.deepEqual(world.starts, ["websocket 0", "eventsource 2500", "longpoll 5000"]);
  assert.deepEqual(world.using, ["websocket", "eventsource", "longpoll"]);
});

scenario("a transport that fails outright starts the next at once", async (world) => {
  world.openAlone();
  await world.pass(100);
  world.last("websocket").end();
  await world.pass(3000);
  assert.deepEqual(world.starts, ["websocket 0", "eventsource 100", "longpoll 2600"]);
});

scenario("the first to deliver wins, and the others are closed", async (world) => {
  const tab = world.openAlone();
  await world.pass(5000);
  world.last("eventsource").works(cursor(1)).tell(envelope(2));
  assert.deepEqual([world.using, tab.states, tab.data], [["eventsource"], ["open eventsource"], [2]]);
  assert.equal(tab.reasons[0], "websocket delivered nothing");
});

scenario("a slow WebSocket may still win while the event stream has not delivered", async (world) => {
  const tab = world.openAlone();
  await world.pass(4000);
  world.last("websocket").works(cursor(1));
  assert.deepEqual([world.using, tab.states], [["websocket"], ["open websocket"]]);
  await world.pass(5000);
  assert.equal(world.last("longpoll"), undefined);
});

scenario("a transport works when the server's `open` came through it, and not before", async (world) => {
  const tab = world.openAlone();
  world.last("websocket").ping(cursor(1));
  world.last("websocket").say({control: "else"});
  await world.pass(2500);
  world.last("eventsource").works(cursor(1));
  assert.deepEqual([world.using, tab.states], [["eventsource"], ["open eventsource"]]);
});

scenario("where two of three are silent, the first update is there within 6 s", async (world) => {
  const tab = world.openAlone();
  await world.pass(5200);
  world.last("longpoll").works(cursor(1)).tell(envelope(2));
  assert.deepEqual([world.now < 6000, tab.data, world.using], [true, [2], ["longpoll"]]);
});

scenario("a connection that delivers nothing for 10 s is given up; after the last there is a wait", async (world) => {
  const tab = world.openAlone();
  await world.pass(14999);
  assert.deepEqual([world.using, tab.states], [["longpoll"], []]);
  await world.pass(1);
  assert.deepEqual([world.using, tab.states, tab.reasons], [[], ["waiting"], [
    "websocket delivered nothing; eventsource delivered nothing; longpoll delivered nothing"
  ]]);
});

scenario("a race begins at the cursor, so what two connections bring is passed on once", async (world) => {
  const tab = world.openAlone({cursor: cursor(1)});
  await world.pass(5000);
  assert.deepEqual(world.live.map(({query}) => query.cursor), [cursor(1), cursor(1), cursor(1)]);
  world.last("longpoll").works(cursor(1)).tell(envelope(2), envelope(3));
  assert.deepEqual([tab.data, world.using], [[2, 3], ["longpoll"]]);
});

scenario("the transports that the page names are used, in its order", async (world) => {
  world.openAlone({transports: ["longpoll", "websocket"], stagger: 1000});
  await world.pass(8000);
  assert.deepEqual(world.starts, ["longpoll 0", "websocket 1000"]);
});

// What is remembered

scenario("what worked is tried first by the next page, for 30 minutes and no longer", async (world) => {
  world.openAlone();
  await world.pass(2500);
  world.last("eventsource").works(cursor(1));
  await world.pass(30 * MINUTE - 1);
  assert.equal(first(world), "eventsource");
  await world.pass(1);
  assert.equal(first(world), "websocket");
});

scenario("however many pages are opened, each 30 minutes WebSocket goes first again", async (world) => {
  const tried = [];
  for (let page = 0; page < 7; page++) {
    const tab = world.openAlone();
    tried.push(world.connections.at(-1).transport);
    await world.pass(2500);
    world.last("eventsource").works(cursor(1));
    await world.pass(10 * MINUTE);
    tab.subscription.close();
  }
  const halfHour = ["websocket", "eventsource", "eventsource"];
  assert.deepEqual(tried, [...halfHour, ...halfHour, "websocket"]);
});

for (const [what, env] of [
  ["that throws", {storage: {getItem: throwing("forbidden"), setItem: throwing("full")}}],
  ["that is not there", {storage: null}],
  ["with another's text in it", {storage: storage({"pushcompat.transport https://app.example": "something else"})}],
  ["from a clock that was ahead", {storage: storage({"pushcompat.transport https://app.example": "longpoll 9999999999999"})}]
]) {
  scenario(`a storage ${what} is as good as none`, async (world) => {
    const tab = world.openAlone({env});
    assert.deepEqual(world.using, ["websocket"]);
    world.last("websocket").works(cursor(1)).tell(envelope(2));
    assert.deepEqual(tab.data, [2]);
  });
}

// The budget

/** So often the transport that is first in line delivers and dies at once. Returns who it was each time. */
async function dieYoung(world, times) {
  const who = [];
  while (who.length < times) {
    const [connection] = world.live;
    who.push(connection.transport);
    connection.works(cursor(1));
    await world.pass(500);
    world.live[0].end();
    await world.pass(30000);
  }
  return who;
}

scenario("whose connections lived under a second, three times in a row, goes behind the others", async (world) => {
  world.openAlone({openTimeout: 1e9, stagger: 1e8});
  assert.deepEqual(await dieYoung(world, 4), ["websocket", "websocket", "websocket", "eventsource"]);
});

scenario("when all of them have died young it is not theirs, and the count begins anew", async (world) => {
  world.openAlone({openTimeout: 1e9, stagger: 1e8});
  const who = await dieYoung(world, 13);
  assert.deepEqual(who.slice(8), ["longpoll", "longpoll", "longpoll", "longpoll", "websocket"]);
});

scenario("a connection that held ends the row", async (world) => {
  world.openAlone({openTimeout: 1e9, stagger: 1e8});
  await dieYoung(world, 2);
  world.last("websocket").works(cursor(1));
  await world.pass(1000);
  world.last("websocket").ping(cursor(1));
  world.last("websocket").end();
  await world.pass(30000);
  assert.deepEqual(await dieYoung(world, 3), ["websocket", "websocket", "websocket"]);
});

scenario("an outage, in which nothing works, demotes nobody", async (world) => {
  const tab = world.openAlone();
  world.last("websocket").works(cursor(1));
  await world.pass(2000);
  world.onconnect = (connection) => world.later(1, () => connection.end());
  world.last("websocket").end();
  await world.pass(60 * MINUTE);
  assert(world.connections.length > 300);
  world.onconnect = () => {};
  await world.untilNext();
  assert.deepEqual(world.using, ["websocket"]);
  world.last("websocket").works(cursor(1));
  assert.equal(tab.subscription.transport, "websocket");
});

scenario("what delivered nothing while another did, three times, is not soon tried again", async (world) => {
  const waits = [];
  world.openAlone();
  for (let i = 0; i < 4; i++) {
    world.last("websocket").works(cursor(1));
    await world.pass(2000);
    world.last("websocket").end();
    await world.pass(500);
    if (i % 2) world.last("websocket").end(); // refused, or it says nothing
    else await world.pass(2500);
    world.last("eventsource").works(cursor(1), {heartbeat: 1000});
    waits.push(await world.untilNext());
  }
  assert.deepEqual(waits, [5000, 5000, 60000, 300000]);
});
