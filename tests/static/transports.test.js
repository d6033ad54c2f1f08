"use strict";

const {assert, cursor, envelope, scenario, throwing} = require("./world.js");

const CONSTRUCTORS = {websocket: "WebSocket", eventsource: "EventSource", longpoll: "XMLHttpRequest"};
const PORTAL = "<!DOCTYPE html><title>Welcome to our network</title>";

/** The last connection of a subscription that has only this transport. */
function connect(world, transport, options) {
  const tab = world.openAlone({transports: [transport], ...options});
  return {tab, connection: world.last(transport)};
}

for (const transport of Object.keys(CONSTRUCTORS)) {
  scenario(`${transport}: messages arrive, and move the cursor`, async (world) => {
    const {tab, connection} = connect(world, transport);
    const working = connection.works(cursor(3));
    assert.deepEqual([tab.subscription.state, tab.subscription.transport, tab.cursor], ["open", transport, cursor(3)]);
    working.tell(envelope(4), envelope(5)).tell(envelope(6));
    assert.deepEqual([tab.data, tab.cursor], [[4, 5, 6], cursor(6)]);
  });

  scenario(`${transport}: a request names transport, json format, client and cursor`, async (world) => {
    const {connection} = connect(world, transport, {cursor: cursor(7)});
    const {wait, ...query} = connection.query;
    assert.deepEqual(query, {transport, format: "json", client: "i", cursor: cursor(7)}); // 0.5 is 0.i
    assert.equal(wait, transport === "longpoll" ? "0" : undefined);
    const scheme = transport === "websocket" ? "wss" : "https";
    assert(connection.url.startsWith(`${scheme}://app.example/channels/chat?transport=`), connection.url);
  });

  scenario(`${transport}: what is not after the cursor was seen already, and is dropped`, async (world) => {
    const {tab, connection} = connect(world, transport, {cursor: cursor(5)});
    connection.works(cursor(5)).tell(envelope(4), envelope(6), envelope(6)).tell(envelope(7), envelope(6)).end();
    assert.deepEqual(tab.data, [6, 7]);
    await world.untilNext();
    assert.equal(world.last(transport).query.cursor, cursor(7));
  });

  scenario(`${transport}: after a cut it comes back with the cursor of what was heard last`, async (world) => {
    const {tab, connection} = connect(world, transport);
    connection.works(cursor(1)).tell(envelope(2)).end();
    assert.equal(tab.subscription.state, "waiting");
    await world.pass(500);
    assert.equal(world.last(transport).query.cursor, cursor(2));
    world.last(transport).works(cursor(2));
    assert.deepEqual(tab.states, [`open ${transport}`, "waiting", "connecting", `open ${transport}`]);
  });

  scenario(`${transport}: what is not the server's, as a captive portal's page, ends the connection`, async (world) => {
    const {tab, connection} = connect(world, transport);
    if (transport === "longpoll") connection.answer(PORTAL);
    else connection.say(PORTAL);
    assert(!connection.isOpen);
    assert.deepEqual(tab.reasons, ["not a pushcompat server's response"]);
    await world.pass(500);
    world.last(transport).works(cursor(1));
    assert.equal(tab.subscription.state, "open");
  });

  scenario(`${transport}: a control message that is not known is ignored`, async (world) => {
    const {tab, connection} = connect(world, transport);
    let working = connection.works(cursor(1));
    for (const control of ["new", "constructor", "toString", "__proto__", "hasOwnProperty"]) {
      await world.pass(1000);
      const message = {control, cursor: cursor(9)};
      if (transport === "longpoll") working = working.answer({cursor: cursor(1), messages: [message]});
      else working.say(message);
    }
    assert.deepEqual([tab.data, tab.cursor, world.using], [[], cursor(1), [transport]]);
  });

  scenario(`${transport}: a reset is told, moves the cursor, and what follows is passed on`, async (world) => {
    const {tab, connection} = connect(world, transport, {cursor: cursor(90)});
    if (transport !== "longpoll") connection.works("00000000-000000000000000");
    connection.reset(cursor(4, "bbbbbbbb")).tell(envelope(5, {id: cursor(5, "bbbbbbbb")}));
    const [{control, channels, ...reset}] = tab.resets;
    assert.deepEqual([control, reset.cursor, channels], ["reset", cursor(4, "bbbbbbbb"), ["chat"]]);
    assert.deepEqual([tab.data, tab.cursor], [[5], cursor(5, "bbbbbbbb")]);
  });

  scenario(`${transport}: a constructor that throws is a connection that failed`, async (world) => {
    const tab = world.openAlone({transports: [transport], env: {[CONSTRUCTORS[transport]]: throwing("not here")}});
    await world.pass(60000);
    assert.equal(tab.reasons[0], `${transport}: not here`);
    assert.deepEqual(tab.states.slice(0, 5), ["waiting", "connecting", "waiting", "connecting", "waiting"]);
  });

  scenario(`${transport}: where it is missing, another one is used`, async (world) => {
    world.openAlone({env: {[CONSTRUCTORS[transport]]: null}});
    await world.pass(6000);
    assert.deepEqual(world.using, Object.keys(CONSTRUCTORS).filter((name) => name !== transport));
  });

  scenario(`${transport}: after close() nothing is heard, and nothing connects`, async (world) => {
    const {tab, connection} = connect(world, transport);
    connection.works(cursor(1));
    tab.subscription.close();
    assert.deepEqual(world.using, []);
    await world.pass(3600000);
    assert.deepEqual([world.using, tab.states], [[], [`open ${transport}`, "closed"]]);
  });
}

scenario("without any transport the subscription says so, and is closed", async (world) => {
  const tab = world.openAlone({env: {WebSocket: null, EventSource: null, XMLHttpRequest: null}});
  await world.pass(0);
  assert.deepEqual([tab.states, tab.reasons], [["closed"], ["no transport is usable here"]]);
});

scenario("a transport's name that does not exist is the page's mistake, said at once", async (world) => {
  for (const token of [undefined, async () => "soon"]) {
    assert.throws(() => world.openAlone({token, transports: ["carrier pigeon"]}), /unknown transport: carrier pigeon/);
  }
});

scenario("websocket: it is used whatever its type; old engines say “object”", async (world) => {
  const {tab} = connect(world, "websocket", {env: {WebSocket: {}}}); // that can not be, but is tried
  await world.pass(0);
  assert.match(tab.reasons[0], /^websocket: .*is not a constructor/);
});

scenario("websocket: a close code and its reason are told", async (world) => {
  const {tab, connection} = connect(world, "websocket");
  connection.works(cursor(1)).end(1011, "the server fell over");
  await world.pass(500);
  world.last("websocket").works(cursor(1)).end();
  assert.deepEqual([tab.reasons[1], tab.reasons[4]], ["the server fell over", "the WebSocket ended with code 1006"]);
});

scenario("eventsource: it is closed on error and made anew, since the browser gives up on a 502", async (world) => {
  const {tab, connection} = connect(world, "eventsource");
  connection.works(cursor(1));
  while (world.connections.length < 5) {
    world.last("eventsource").end(); // the fake checks that close() was called
    await world.pass(8000);
  }
  world.last("eventsource").works(cursor(1));
  assert.deepEqual([tab.subscription.state, world.using], ["open", ["eventsource"]]);
});

scenario("longpoll: the first poll is answered at once, the next ones are held for 25 s", async (world) => {
  const {connection} = connect(world, "longpoll");
  const poll = connection.works(cursor(1)).tell(envelope(2));
  await world.pass(5000);
  poll.answer({cursor: cursor(3), messages: []});
  const [first, ...rest] = world.connections.map(({query}) => `${query.wait} s from ${query.cursor}`);
  assert.equal(first, "0 s from undefined");
  assert.deepEqual(rest, [1, 2, 3].map((number) => `25 s from ${cursor(number)}`));
});

scenario("longpoll: there is never more than one poll at a time", async (world) => {
  const {connection} = connect(world, "longpoll");
  let poll = connection.works(cursor(1));
  for (let number = 2; number < 9; number++) {
    poll = poll.tell(envelope(number));
    assert.equal(world.live.length, 1);
  }
});

scenario("longpoll: polls differ in their cursor only, so that a server may compare them", async (world) => {
  const {connection} = connect(world, "longpoll");
  connection.works(cursor(1)).tell(envelope(2)).tell(envelope(3));
  const [one, two] = world.connections.slice(1).map(({url}) => url.replace(/cursor=[^&]*/, ""));
  assert.equal(one, two);
});

scenario("longpoll: a callback that closes the subscription hears no more of the same answer", async (world) => {
  const {tab, connection} = connect(world, "longpoll", {
    onMessage: (message) => {
      tab.data.push(message.data);
      tab.subscription.close();
    }
  });
  connection.works(cursor(1)).tell(envelope(2), envelope(3));
  assert.deepEqual([tab.data, world.using], [[2], []]);
});
