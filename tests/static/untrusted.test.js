/* Whatever a server, or what is between it and the page, says: nothing throws out of a handler, no client reconnects
 * without a pause, and what is far away in time comes late and never at once.
 */
"use strict";

const {assert, cursor, envelope, scenario} = require("./world.js");

const FAR_MS = 0x7fffffff; // what a browser's timer holds
const INVALID = "not a pushcompat server's response";

/** A tab whose only transport has delivered. */
function connected(world, transport = "websocket", open) {
  const tab = world.openAlone({transports: [transport], cursor: cursor(1)});
  world.last(transport).works(cursor(1), open);
  return tab;
}

// What is not an envelope or a control message of the protocol

const NOT_MESSAGES = [
  {},
  [],
  {channel: "chat", data: 1, time: 0},
  ...[null, 7, true, "", "\ud800", "a b", {toString: 1}, [cursor(2)]].flatMap((place) => [
    {id: place, channel: "chat", data: 1, time: 0},
    ...["open", "ping", "reset", "rotate", "expired"].map((control) => ({control, cursor: place}))
  ]),
  ...["open", "ping", "reset", "rotate", "expired"].map((control) => ({control})),
  {control: 7, cursor: cursor(2)},
  {control: {toString: 1, valueOf: 1}, cursor: cursor(2)},
  {control: ["ping"], cursor: cursor(2)}
];

for (const transport of ["websocket", "eventsource", "longpoll"]) {
  scenario(`${transport}: what is no message of the protocol ends the connection; nothing throws`, async (world) => {
    for (const message of NOT_MESSAGES) {
      const what = JSON.stringify(message), tab = connected(world, transport), [connection] = world.live;
      if (transport === "longpoll") connection.answer({cursor: cursor(2), messages: [message]});
      else tab.run(() => connection.say(message));
      assert.deepEqual([tab.states, tab.reasons.at(-1)], [[`open ${transport}`, "waiting"], INVALID], what);
      await world.untilNext();
      world.last(transport).works(cursor(1)).tell(envelope(2));
      assert.deepEqual([tab.data, tab.cursor], [[2], cursor(2)], what);
      tab.subscription.close();
    }
  });
}

scenario("a connection that begins with no message of the protocol starts the next transport", async (world) => {
  const tab = world.openAlone();
  tab.run(() => world.last("websocket").say({control: "open", heartbeat: 15, lifetime: null}));
  world.last("eventsource").works(cursor(1)).tell(envelope(2));
  assert.deepEqual([tab.data, tab.states, tab.reasons], [[2], ["open eventsource"], [INVALID]]);
});

for (const answer of [
  {messages: []},
  {cursor: 7, messages: []},
  {cursor: "", messages: []},
  {cursor: cursor(2)},
  {cursor: cursor(2), messages: {length: 1, 0: envelope(2)}},
  {cursor: cursor(2), messages: "none"},
  {cursor: cursor(3), messages: [envelope(2), {id: 3}]},
  [], 7, "text", true
]) {
  scenario(`longpoll: ${JSON.stringify(answer)} is no answer of the protocol; none of it is taken`, async (world) => {
    const tab = connected(world, "longpoll");
    world.last("longpoll").answer(JSON.stringify(answer));
    assert.deepEqual([tab.data, tab.cursor, tab.reasons.at(-1)], [[], cursor(1), INVALID]);
    await world.untilNext();
    assert.equal(world.last("longpoll").query.cursor, cursor(1));
  });
}

scenario("numbers that are none are taken for those that are missing", async (world) => {
  for (const none of [null, "soon", -1, {valueOf: 1, toString: 1}, [7]]) {
    const tab = connected(world, "websocket", {heartbeat: none, lifetime: none});
    tab.run(() => world.live[0].tell(envelope(2, {spread: none})));
    await world.pass(29999);
    assert.deepEqual([tab.data, tab.states], [[2], ["open websocket"]], JSON.stringify(none));
    await world.pass(1);
    assert.equal(tab.reasons.at(-1), "websocket timed out");
    tab.subscription.close();
  }
});

// Polls that are not held

for (const [what, answer] of [
  ["with nothing", (number) => ({cursor: cursor(1), messages: []})],
  ["with nothing but another cursor", (number) => ({cursor: cursor(number), messages: []})],
  ["with what was seen already", (number) => ({cursor: cursor(1), messages: [envelope(1)]})],
  ["with the same reset", (number) => ({cursor: cursor(1), messages: [], reset: ["chat"]})],
  ["with “retry” 0", (number) => ({cursor: cursor(1), messages: [], retry: 0})]
]) {
  scenario(`longpoll: answers at once ${what} are failures: a second at least, and backoff`, async (world) => {
    world.random = () => 0;
    const tab = connected(world, "longpoll"), times = [];
    world.onconnect = (poll) => world.later(1, () => {
      if (poll.query.wait !== "0") times.push(world.now);
      poll.tab.run(() => poll.answer(answer(world.connections.length)));
    });
    world.last("longpoll").answer(answer(2));
    await world.pass(10000);
    assert(times.length >= 9 && times.every((time, i) => !i || time - times[i - 1] >= 1000), String(times));
    assert.equal(tab.reasons[1], "polls are not held");
    world.random = () => 1;
    const {length} = world.connections;
    await world.pass(600000);
    assert(world.connections.length - length < 60, String(world.connections.length - length));
  });
}

scenario("longpoll: a reset at once is followed at once, but a second in a row is a failure", async (world) => {
  world.random = () => 1;
  const tab = connected(world, "longpoll"), lost = {messages: [], reset: ["chat"]}; // by two servers in turn
  world.onconnect = (poll) => world.later(1, () => {
    poll.tab.run(() => poll.answer({cursor: cursor(1, "bc"[world.connections.length % 2].repeat(8)), ...lost}));
  });
  world.last("longpoll").answer({cursor: cursor(1, "bbbbbbbb"), ...lost});
  await world.pass(500);
  assert.deepEqual([tab.resets.length, tab.states, tab.reasons[1]], [2, ["open longpoll", "waiting"], "polls are not held"]);
  await world.pass(600000);
  assert(world.connections.length < 100, String(world.connections.length));
});

scenario("longpoll: where polls are not held another transport takes over", async (world) => {
  const tab = world.openAlone();
  world.onconnect = (each) => world.later(1, () => {
    if (each.transport === "longpoll") each.tab.run(() => each.answer({cursor: cursor(1), messages: []}));
    if (each.transport === "eventsource" && world.now > 30000) each.works(cursor(1), {heartbeat: 1e6});
  });
  await world.pass(100000);
  assert.deepEqual([tab.subscription.transport, world.using], ["eventsource", ["eventsource"]]);
});

scenario("longpoll: answers that bring messages are followed at once, however fast they come", async (world) => {
  const tab = connected(world, "longpoll");
  let poll = world.last("longpoll");
  for (let number = 2; number < 50; number++) poll = poll.tell(envelope(number));
  assert.deepEqual([tab.data.length, tab.states, world.now], [48, ["open longpoll"], 0]);
});

scenario("longpoll: an empty answer after the server's window, however short, is followed at once", async (world) => {
  const tab = connected(world, "longpoll");
  for (let i = 0; i < 20; i++) {
    await world.pass(1000);
    world.last("longpoll").answer({cursor: cursor(1), messages: []});
    assert.equal(world.live.length, 1);
  }
  assert.deepEqual(tab.states, ["open longpoll"]);
});

// What is far away

scenario("no timer is set to more than a browser holds, which would fire at once", async (world) => {
  const delays = [], tab = world.tab(), {setTimeout} = tab.env;
  tab.env.setTimeout = (action, ms) => {
    delays.push(ms);
    return setTimeout(action, ms);
  };
  tab.follow({
    shareTabs: false, stagger: Infinity, openTimeout: Infinity, retryMin: Infinity, retryMax: Infinity,
    upgradeAfter: [Infinity]
  });
  world.last("websocket").end();
  world.last("eventsource").works(cursor(1), {heartbeat: 1e300, lifetime: 1e300});
  world.last("eventsource").tell(envelope(2, {spread: 1e300}));
  await world.pass(1000);
  world.last("eventsource").rotate(cursor(2), 1e300);
  tab.happens("online");
  world.live.forEach((connection) => connection.end());
  await world.pass(1000);
  assert(delays.length > 8 && delays.every((ms) => ms >= 0 && ms <= FAR_MS), String(delays));
});

for (const [what, open] of [
  ["a heartbeat of 2,000,000 s", {heartbeat: 2e6}],
  ["a heartbeat that JSON reads as infinite", `{"control":"open","cursor":"${cursor(1)}","heartbeat":1e999}`]
]) {
  scenario(`${what} does not end good connections`, async (world) => {
    const tab = world.openAlone({transports: ["websocket"]});
    if (typeof open === "string") world.last("websocket").say(open);
    else world.last("websocket").works(cursor(1), open);
    await world.pass(86400000);
    assert.deepEqual([tab.states, world.connections.length], [["open websocket"], 1]);
  });
}

scenario("a rotation in 30 years does not come at once", async (world) => {
  const tab = connected(world);
  world.last("websocket").rotate(cursor(1), 1e12);
  assert.equal(await world.untilNext(), FAR_MS);
  assert.equal(tab.states[1], "waiting");
});

scenario("a spread over 30 years is called back with late, and spread", async (world) => {
  const moments = [0.5, 0.25], tab = connected(world);
  world.random = () => moments.shift();
  world.last("websocket").tell(envelope(2, {spread: 1e12}));
  await world.pass(FAR_MS / 2 - 1);
  assert.deepEqual(tab.data, []);
  await world.pass(1);
  assert.deepEqual(tab.data, [2]);
});

scenario("a heartbeat under a second keeps no tab busy", async (world) => {
  world.open();
  await world.pass(10);
  world.last("websocket").works(cursor(1), {heartbeat: 0.001});
  const {length} = world.posts;
  await world.pass(20000);
  assert(world.posts.length - length < 30, String(world.posts.length - length));
});

// Resets

for (const transport of ["websocket", "eventsource", "longpoll"]) {
  scenario(`${transport}: a reset to an earlier cursor of the epoch is told, and what follows`, async (world) => {
    const tab = world.openAlone({transports: [transport], cursor: cursor(900)});
    let connection = world.last(transport);
    if (transport !== "longpoll") connection = connection.works(cursor(900));
    connection = connection.reset(cursor(2)).tell(envelope(3), envelope(4));
    assert.deepEqual([tab.resets.length, tab.data, tab.cursor], [1, [3, 4], cursor(4)]);
    connection.reset(cursor(1)).tell(envelope(2));
    assert.deepEqual([tab.resets.length, tab.data, tab.cursor], [2, [3, 4, 2], cursor(2)]);
  });
}

scenario("also when the connection had moved on since it began, and after a reset to another epoch", async (world) => {
  const tab = connected(world), connection = world.last("websocket");
  connection.tell(envelope(900)).reset(cursor(2));
  assert.deepEqual([tab.resets.length, tab.cursor], [1, cursor(2)]);
  connection.reset(cursor(50, "bbbbbbbb")).reset(cursor(4, "bbbbbbbb"));
  assert.deepEqual([tab.resets.length, tab.cursor], [3, cursor(4, "bbbbbbbb")]);
});

scenario("a connection that began earlier and lost what another one has delivered resets nothing", async (world) => {
  const tab = connected(world), [old] = world.live;
  tab.happens("online");
  old.tell(envelope(2), envelope(3));
  world.last("websocket").works(cursor(1)).reset(cursor(3)).tell(envelope(4));
  assert.deepEqual([tab.resets, tab.data], [[], [2, 3, 4]]);
});

// WebSockets that say `error` only

function refusedSocket(world, readyState) {
  return function WebSocket() {
    const connection = world.connect(world.tab(), "websocket", "wss://app.example/channels/chat", {});
    this.readyState = readyState;
    this.close = () => { connection.isOpen = false; };
    world.later(1, () => {
      if (this.onerror) this.onerror({});
      else world.errors.push("nobody listens for “error”");
    });
  };
}

scenario("websocket: `error` without `close` (a page's policy) starts the next transport at once", async (world) => {
  const tab = world.openAlone({env: {WebSocket: refusedSocket(world, 3)}});
  await world.pass(1);
  world.last("eventsource").works(cursor(1));
  assert.deepEqual([tab.states, tab.reasons], [["open eventsource"], ["the WebSocket failed"]]);
});

scenario("websocket: `error` before `close` (Node's `ws`) is listened for, also after close()", async (world) => {
  const tab = world.openAlone({transports: ["websocket"], env: {WebSocket: refusedSocket(world, 2)}});
  await world.pass(1);
  assert.equal(tab.subscription.state, "connecting");
  tab.subscription.close();
  const other = world.openAlone({transports: ["websocket"], env: {WebSocket: refusedSocket(world, 2)}});
  other.subscription.close();
  await world.pass(1);
  assert.deepEqual([tab.states, other.states], [["closed"], ["closed"]]);
});
