"use strict";

const {assert, cursor, envelope, scenario} = require("./world.js");

const OTHER_EPOCH = "bbbbbbbb";

/** A tab whose only transport has delivered. */
function connected(world, {transport = "websocket", open, ...options} = {}) {
  const tab = world.openAlone({transports: [transport], cursor: cursor(1), ...options});
  world.last(transport).works(cursor(1), open);
  return tab;
}

// The watchdog

for (const [what, open, transport, patience] of [
  ["twice the heartbeat", {heartbeat: 15}, "websocket", 30000],
  ["twice the heartbeat", {heartbeat: 2.5}, "eventsource", 5000],
  ["its lifetime and 5 s, if that is less", {heartbeat: 15, lifetime: 20}, "websocket", 25000],
  ["the window of a poll and 10 s", {}, "longpoll", 35000]
]) {
  scenario(`${transport}: one that says nothing for ${what} is dead, whatever the browser thinks`, async (world) => {
    const tab = connected(world, {transport, open});
    await world.pass(patience - 1);
    assert.deepEqual([tab.subscription.state, world.live.length], ["open", 1]);
    await world.pass(1);
    assert.deepEqual([tab.states[1], world.live], ["waiting", []]);
    assert.equal(tab.reasons[1], `${transport} timed out`);
    await world.pass(500);
    world.last(transport).works(cursor(1)).tell(envelope(2));
    assert.deepEqual(tab.data, [2]);
  });
}

scenario("whatever is heard, a ping too, keeps the watchdog quiet", async (world) => {
  const tab = connected(world);
  for (let number = 2; number < 20; number++) {
    await world.pass(29000);
    if (number % 2) world.last("websocket").tell(envelope(number));
    else world.last("websocket").ping(cursor(number));
  }
  assert.deepEqual([tab.states, world.connections.length], [["open websocket"], 1]);
});

scenario("one that delivers its opening and never more goes, after three times, behind the others", async (world) => {
  const tab = world.openAlone();
  for (let i = 0; i < 3; i++) {
    world.last("websocket").works(cursor(1));
    await world.pass(31000);
  }
  assert.deepEqual(world.using, ["eventsource"]);
  assert.equal(tab.reasons.at(-2), "websocket timed out");
});

// Backoff

scenario("the wait after a failure is random up to 0.5 s, which doubles with each failure to 30 s", async (world) => {
  const most = [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000];
  for (const random of [0, 0.25, 0.999]) {
    world.random = () => random;
    const tab = connected(world), waits = [];
    while (waits.length < most.length) {
      world.live[0].end();
      waits.push(await world.untilNext());
    }
    assert.deepEqual(waits, most.map((each) => random * each));
    tab.subscription.close();
  }
});

for (const how of ["is cut", "rotates"]) {
  scenario(`a connection that held for a second and ${how} begins the backoff anew`, async (world) => {
    world.random = () => 1;
    connected(world);
    for (let i = 0; i < 4; i++) {
      world.last("websocket").end();
      await world.untilNext();
    }
    world.last("websocket").works(cursor(1));
    await world.pass(1000);
    if (how === "rotates") {
      world.last("websocket").rotate(cursor(1), 10);
      await world.untilNext();
    }
    world.last("websocket").end();
    assert.equal(await world.untilNext(), 500);
  });
}

scenario("a server that lets in and throws out at once is not hammered", async (world) => {
  world.random = () => 1;
  connected(world);
  for (let i = 0; i < 7; i++) {
    world.last("websocket").works(cursor(1)).end();
    await world.untilNext();
  }
  world.last("websocket").works(cursor(1)).end();
  assert.equal(await world.untilNext(), 30000);
});

for (const how of ["online", "visibilitychange"]) {
  scenario(`“${how}” cuts a wait short`, async (world) => {
    world.random = () => 1;
    const tab = connected(world, {retryMin: 5000});
    world.last("websocket").end();
    await world.pass(100);
    tab.happens(how);
    assert.equal(world.last("websocket").time, 100);
    await world.pass(9000); // past the end of the wait
    assert.deepEqual([tab.subscription.state, world.using], ["connecting", ["websocket"]]);
    world.last("websocket").works(cursor(1), {heartbeat: 1000});
    await world.pass(60000);
    assert.deepEqual([world.connections.length, tab.states.length], [2, 4]);
  });
}

// Coming back by plan

for (const transport of ["websocket", "eventsource", "longpoll"]) {
  scenario(`${transport}: when its time is up it comes back just when the server says`, async (world) => {
    const tab = connected(world, {transport});
    world.last(transport).rotate(cursor(3), 2983);
    assert.equal(await world.untilNext(), 2983);
    assert.equal(world.last(transport).query.cursor, cursor(3));
    world.last(transport).works(cursor(3)).tell(envelope(4));
    assert.deepEqual([tab.data, tab.states], [[4], [`open ${transport}`]]);
  });
}

for (const retry of [100, 0, undefined, "soon", {valueOf: 1}]) {
  scenario(`a rotation with retry ${JSON.stringify(retry)} takes 100 ms at least`, async (world) => {
    world.random = () => 0;
    const tab = connected(world);
    for (let i = 0; i < 9; i++) {
      world.last("websocket").rotate(cursor(1), retry);
      assert.equal(await world.untilNext(), 100);
      world.last("websocket").works(cursor(1));
    }
    assert.deepEqual([tab.states, world.using], [["open websocket"], ["websocket"]]);
  });
}

scenario("rotations of connections that lived under a second back off, and demote nobody", async (world) => {
  world.random = () => 1;
  const tab = world.openAlone(), waits = [];
  for (let i = 0; i < 9; i++) {
    world.last("websocket").works(cursor(1)).rotate(cursor(1), 700);
    waits.push(await world.untilNext());
  }
  assert.deepEqual(waits, [700, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
  assert.deepEqual([tab.states.slice(0, 3), world.using], [["open websocket", "waiting", "connecting"], ["websocket"]]);
  assert.equal(tab.reasons[1], "rotated by the server");
});

scenario("a rotation that takes over 5 s is told to the page as “waiting”", async (world) => {
  const tab = connected(world);
  await world.pass(1000);
  world.last("websocket").rotate(cursor(1), 5001);
  assert.deepEqual(tab.states, ["open websocket", "waiting"]);
  assert.equal(await world.untilNext(), 5001);
});

scenario("when nothing can be had after a rotation, that is a loss like any other", async (world) => {
  const tab = connected(world);
  world.last("websocket").rotate(cursor(1), 100);
  await world.untilNext();
  world.last("websocket").end();
  assert.deepEqual(tab.states, ["open websocket", "waiting"]);
});

for (const wins of ["websocket", "eventsource"]) {
  scenario(`a rotation while a better transport is tried does not wait for that; ${wins} is first`, async (world) => {
    const tab = world.openAlone();
    world.last("websocket").end();
    world.last("eventsource").works(cursor(1), {heartbeat: 1e6});
    await world.pass(60000);
    world.last("eventsource").rotate(cursor(2), 100);
    if (wins === "eventsource") await world.pass(100);
    world.last(wins).works(cursor(2), {heartbeat: 1e6}).tell(envelope(3));
    const {length} = world.connections;
    await world.pass(4000);
    assert.deepEqual([tab.data, world.using, world.connections.length], [[3], [wins], length]);
  });
}

// The server refuses, or only seems to

for (const [what, transport, status] of [
  ["a malformed request", "websocket", 400],
  ["this origin", "websocket", 403],
  ["what is not known yet", "websocket", 499],
  ["a malformed request", "longpoll", 400],
  ["this origin", "longpoll", 403],
  ["a channel's name", "longpoll", 404]
]) {
  scenario(`${transport}: that the server refuses ${what} (${status}) is final, and its reason told`, async (world) => {
    const tab = world.openAlone({transports: [transport]});
    world.last(transport).refuse(status, "use another one");
    assert.deepEqual([tab.states, tab.reasons], [["closed"], ["use another one"]]);
    await world.pass(3600000);
    assert.equal(world.connections.length, 1);
  });
}

for (const [what, refuse] of [
  ["a gateway's 502 page", (poll) => poll.answer("<h1>Bad Gateway</h1>", 502)],
  ["a gateway's 403 page", (poll) => poll.answer("<h1>Blocked</h1>", 403)],
  ["a gateway's 401 in JSON", (poll) => poll.answer("{\"error\": 1}", 401)],
  ["null", (poll) => poll.answer("null")],
  ["half an answer", (poll) => poll.answer("{\"cursor\":\"aaaa")],
  ["503 from the server", (poll) => poll.refuse(503, "later")],
  ["500 from the server", (poll) => poll.refuse(500, "a defect")],
  ["408 from the server", (poll) => poll.refuse(408, "too slow")],
  ["425 from the server", (poll) => poll.refuse(425, "too early")],
  ["426 from the server", (poll) => poll.refuse(426, "use another transport")],
  ["429 from the server", (poll) => poll.refuse(429, "too many")]
]) {
  scenario(`longpoll: ${what} will pass`, async (world) => {
    const tab = world.openAlone({transports: ["longpoll"]});
    for (let i = 0; i < 3; i++) {
      refuse(world.last("longpoll"));
      assert.equal(tab.subscription.state, "waiting");
      await world.untilNext();
    }
    world.last("longpoll").works(cursor(1)).tell(envelope(2));
    assert.deepEqual(tab.data, [2]);
  });
}

for (const status of [0, 100, 129, 408, 425, 426, 429, 500, 503]) {
  scenario(`websocket: close code ${4000 + status} is met with backoff`, async (world) => {
    const tab = world.openAlone({transports: ["websocket"]});
    world.last("websocket").refuse(status, "busy");
    assert.deepEqual([tab.states, tab.reasons], [["waiting"], ["busy"]]);
    assert.equal(await world.untilNext(), 250);
  });
}

for (const [what, header, ms] of [
  ["7 s", "7", 7000],
  ["a date", (world) => new Date(world.clock + 9000).toUTCString(), 9000],
  ["100 years, which a timer cannot hold", "3153600000", 0x7fffffff],
  ["a date in the past", "Sun, 06 Nov 1994 08:49:37 GMT", 0],
  ["nonsense", "later", 0]
]) {
  for (const [who, status, refuse] of [
    ["the server's", 429, (poll, headers) => poll.refuse(429, "too many", headers)],
    ["the server's", 503, (poll, headers) => poll.refuse(503, "busy", headers)],
    ["a gateway's", 429, (poll, headers) => poll.answer("Slow down", 429, headers)],
    ["a gateway's", 503, (poll, headers) => poll.answer("<h1>Busy</h1>", 503, headers)]
  ]) {
    scenario(`longpoll: ${who} ${status} with Retry-After ${what} is heeded, and backoff is added`, async (world) => {
      const tab = world.openAlone({transports: ["longpoll"]});
      refuse(world.last("longpoll"), {"Retry-After": typeof header === "string" ? header : header(world)});
      assert.equal(tab.subscription.state, "waiting");
      assert.equal(await world.untilNext(), Math.min(ms + 250, 0x7fffffff));
      world.last("longpoll").end();
      assert.equal(await world.untilNext(), 500);
    });
  }
}

scenario("what a poll was asked to wait is forgotten once another transport has won", async (world) => {
  world.openAlone();
  await world.pass(5000);
  world.last("longpoll").refuse(429, "too many", {"Retry-After": "600"});
  world.last("websocket").works(cursor(1)).end();
  assert.equal(await world.untilNext(), 250);
});

// A refused transport is ruled out, the subscription is not

const TRANSPORTS = ["websocket", "eventsource", "longpoll"];

for (const status of [400, 401, 403, 404]) {
  scenario(`a WebSocket that is refused (${4000 + status}) is not tried again, the next transport is`, async (world) => {
    const tab = world.openAlone();
    world.last("websocket").refuse(status, "not by this way");
    world.last("eventsource").works(cursor(1), {heartbeat: 1e6});
    assert.deepEqual([tab.states, tab.reasons], [["open eventsource"], ["not by this way"]]);
    await world.pass(7200000);
    tab.happens("online");
    world.last("eventsource").works(cursor(1)).tell(envelope(2)).end();
    await world.pass(60000);
    assert.deepEqual([tab.data, world.connections.filter(({transport}) => transport === "websocket").length], [[2], 1]);
  });
}

scenario("it is closed when its last transport refuses, with the server's sentence", async (world) => {
  const tab = world.openAlone();
  world.last("websocket").refuse(403, "not from here");
  world.last("eventsource").end(); // 403, which a page cannot see
  world.last("longpoll").refuse(403, "start it with --cors-origin");
  assert.deepEqual([tab.states, tab.reasons], [["closed"], ["start it with --cors-origin"]]);
  await world.pass(3600000);
  assert.deepEqual(world.connections.map(({transport}) => transport), TRANSPORTS);
});

scenario("a refused poll rules out the event stream, which asks for the same, unless it delivers", async (world) => {
  const tab = world.openAlone();
  await world.pass(5000);
  world.last("websocket").end();
  world.last("longpoll").refuse(403, "not from here");
  world.last("eventsource").works(cursor(1)).tell(envelope(2));
  assert.deepEqual([tab.data, tab.states], [[2], ["open eventsource"]]);
});

scenario("while another transport may work it is not closed: an outage is no refusal", async (world) => {
  const tab = world.openAlone();
  world.last("websocket").refuse(403, "not by this way");
  world.last("eventsource").end();
  world.last("longpoll").end(502, "<h1>Bad Gateway</h1>");
  assert.deepEqual(tab.states, ["waiting"]);
  await world.pass(500);
  assert.deepEqual(world.using, ["eventsource"]);
  world.last("eventsource").works(cursor(1));
  assert.equal(tab.subscription.state, "open");
});

scenario("a connection that works is kept, though the server refuses all others", async (world) => {
  const tab = world.openAlone();
  world.last("websocket").end();
  world.last("eventsource").works(cursor(1), {heartbeat: 1e6});
  const [current] = world.live;
  tab.happens("online");
  await world.pass(5000);
  world.last("websocket").refuse(403, "not from here");
  world.last("longpoll").refuse(403, "not from here");
  await world.pass(10000);
  tab.happens("online");
  current.tell(envelope(2));
  assert.deepEqual([tab.data, tab.states], [[2], ["open eventsource"]]);
  current.end();
  assert.deepEqual([tab.states.at(-1), tab.reasons.at(-1)], ["closed", "not from here"]);
});

scenario("when the connection in use is lost while all that are left are tried, one will do", async (world) => {
  const tab = world.openAlone();
  world.last("websocket").end();
  const old = world.last("eventsource").works(cursor(1));
  tab.happens("online");
  world.last("websocket").refuse(403, "not by this way");
  old.end();
  assert.equal(tab.states.at(-1), "connecting");
  world.last("eventsource").works(cursor(1));
  assert.deepEqual(tab.states, ["open eventsource", "connecting", "open eventsource"]);
});

scenario("a refused attempt to upgrade leaves the connection in use alone", async (world) => {
  const tab = world.openAlone();
  world.last("websocket").end();
  world.last("eventsource").works(cursor(1), {heartbeat: 1e6});
  await world.pass(60000);
  world.last("websocket").refuse(403, "not by this way");
  const {length} = world.connections;
  await world.pass(7200000);
  assert.deepEqual([tab.states, world.using], [["open eventsource"], ["eventsource"]]);
  assert.equal(world.connections.length, length);
});

// Cursors that are no message's

scenario("the cursor of open, ping and rotate is taken when it is of the same epoch and greater", async (world) => {
  const tab = connected(world, {cursor: cursor(5)});
  const seen = [tab.cursor];
  world.last("websocket").ping(cursor(7));
  seen.push(tab.cursor);
  world.last("websocket").ping(cursor(6));
  seen.push(tab.cursor);
  world.last("websocket").rotate(cursor(9), 10);
  seen.push(tab.cursor);
  assert.deepEqual(seen, [5, 7, 7, 9].map((number) => cursor(number)));
});

scenario("the cursor of another epoch's open is not taken: its reset could get lost", async (world) => {
  const tab = connected(world, {cursor: cursor(5)});
  world.last("websocket").end();
  await world.untilNext();
  world.last("websocket").works(cursor(2, OTHER_EPOCH)).ping(cursor(2, OTHER_EPOCH));
  world.last("websocket").end();
  await world.untilNext();
  assert.equal(world.last("websocket").query.cursor, cursor(5));
  world.last("websocket").works("00000000-000000000000000").reset(cursor(3, OTHER_EPOCH));
  assert.deepEqual([tab.resets.length, tab.cursor], [1, cursor(3, OTHER_EPOCH)]);
});

// Earliest

/** The cursors that were asked for. */
function asked(world) {
  return world.connections.map(({query}) => query.cursor);
}

async function cut(world, transport = "websocket") {
  world.last(transport).end();
  await world.untilNext();
}

for (const [what, hear] of [
  ["a message", (connection) => connection.tell(envelope(2))],
  ["a ping", (connection) => connection.ping(cursor(2))]
]) {
  scenario(`“earliest” is asked for again until ${what} came after an \`open\` with a cursor`, async (world) => {
    const tab = connected(world, {cursor: "earliest"});
    assert.equal(tab.cursor, "earliest");
    await cut(world);
    hear(world.last("websocket").works(cursor(1)));
    assert.equal(tab.cursor, cursor(2));
    await cut(world);
    assert.deepEqual(asked(world), ["earliest", "earliest", cursor(2)]);
  });
}

for (const transport of ["websocket", "eventsource"]) {
  scenario(`${transport}: “earliest” is asked for while the server names it; repeats are dropped`, async (world) => {
    const tab = world.openAlone({transports: [transport], cursor: "earliest"});
    world.last(transport).works("earliest").tell(envelope(2), envelope(3)).ping("earliest");
    assert.deepEqual([tab.data, tab.cursor], [[2, 3], "earliest"]);
    await cut(world, transport);
    world.last(transport).works("earliest").tell(envelope(2), envelope(3), envelope(4)).rotate("earliest", 100);
    await world.untilNext();
    world.last(transport).works("earliest").tell(envelope(4), envelope(5)).ping(cursor(5));
    assert.deepEqual([tab.data, tab.cursor], [[2, 3, 4, 5], cursor(5)]);
    await cut(world, transport);
    assert.deepEqual(asked(world), ["earliest", "earliest", "earliest", cursor(5)]);
    assert.deepEqual(tab.resets, []);
  });
}

scenario("longpoll: “earliest” is asked for again while the server names it; repeats are dropped", async (world) => {
  const tab = world.openAlone({transports: ["longpoll"], cursor: "earliest"});
  world.last("longpoll").answer({cursor: "earliest", messages: [envelope(2)]});
  await world.pass(2000);
  world.last("longpoll").answer({cursor: "earliest", messages: [envelope(2), envelope(3)]});
  await world.pass(2000);
  world.last("longpoll").answer({cursor: cursor(4), messages: [envelope(3), envelope(4)]});
  assert.deepEqual([tab.data, tab.cursor, tab.states], [[2, 3, 4], cursor(4), ["open longpoll"]]);
  assert.deepEqual(asked(world), ["earliest", "earliest", "earliest", cursor(4)]);
});

scenario("a page that was left or adds a channel asks for “earliest” again, and sees nothing twice", async (world) => {
  const tab = connected(world, {cursor: "earliest"});
  await cut(world);
  world.last("websocket").works("earliest").tell(envelope(2));
  tab.happens("pagehide");
  tab.happens("pageshow");
  world.last("websocket").works("earliest").tell(envelope(2), envelope(3));
  tab.subscription.add("news");
  await world.pass(0);
  world.last("websocket").works("earliest").tell(envelope(2), envelope(3), envelope(4));
  assert.deepEqual([tab.data, asked(world)], [[2, 3, 4], Array(4).fill("earliest")]);
});

for (const [what, hear] of [
  ["a message", (connection) => connection.tell(envelope(1, {id: cursor(1, OTHER_EPOCH)}))],
  ["a ping", (connection) => connection.ping(cursor(1, OTHER_EPOCH))]
]) {
  scenario(`a new epoch (${what}) after messages of the old one is a reset, also for “earliest”`, async (world) => {
    const tab = world.openAlone({transports: ["websocket"], cursor: "earliest"});
    world.last("websocket").works("earliest").tell(envelope(2));
    if (what === "a ping") await cut(world);
    else ["pagehide", "pageshow"].forEach((name) => tab.happens(name));
    hear(world.last("websocket").works("earliest"));
    assert.deepEqual([tab.data, world.last("websocket").query.cursor], [[2], cursor(2)]);
    world.last("websocket").works("00000000-000000000000000").reset(cursor(1, OTHER_EPOCH));
    assert.deepEqual([tab.resets.length, tab.cursor], [1, cursor(1, OTHER_EPOCH)]);
  });
}

scenario("a reset ends it: from there on its cursor is asked for", async (world) => {
  const tab = world.openAlone({transports: ["websocket"], cursor: "earliest"});
  world.last("websocket").works("earliest").reset(cursor(7));
  await cut(world);
  assert.deepEqual([tab.resets.length, tab.cursor, asked(world)], [1, cursor(7), ["earliest", cursor(7)]]);
});

scenario("a control message that names “earliest” to who did not ask for it moves nothing", async (world) => {
  const tab = connected(world);
  world.last("websocket").ping("earliest");
  assert.equal(tab.cursor, cursor(1));
  world.last("websocket").rotate("earliest", 100);
  await world.untilNext();
  world.last("websocket").works("earliest").tell(envelope(2));
  assert.deepEqual([tab.data, tab.cursor, world.last("websocket").query.cursor], [[2], cursor(2), cursor(1)]);
});

// Sleep, and clocks that are wrong

scenario("who was silent while the page slept is replaced when it is shown, and kept until then", async (world) => {
  const tab = connected(world);
  world.clock += 3600000; // timers stood still
  tab.happens("visibilitychange");
  assert.deepEqual([world.using, world.last("websocket").query.cursor], [["websocket", "websocket"], cursor(1)]);
  world.last("websocket").works(cursor(1)).tell(envelope(2));
  assert.deepEqual([tab.data, tab.states, world.live.length], [[2], ["open websocket"], 1]);
});

scenario("`online` replaces a connection that may be dead, and hears it while it may not be", async (world) => {
  const tab = connected(world);
  const [old] = world.live;
  tab.happens("offline");
  tab.happens("online");
  old.tell(envelope(2));
  world.last("websocket").works(cursor(1)).tell(envelope(2), envelope(3));
  assert.deepEqual([tab.data, tab.states, old.isOpen], [[2, 3], ["open websocket"], false]);
});

scenario("the end of a connection does not lift the time limit of the one that was to replace it", async (world) => {
  const tab = connected(world), [old] = world.live;
  tab.happens("online");
  old.end();
  await world.pass(10000);
  assert.deepEqual([tab.subscription.state, tab.reasons.at(-1)], ["waiting", "websocket delivered nothing"]);
});

scenario("a clock that is set forward or back has no effect", async (world) => {
  const tab = connected(world);
  for (const jump of [86400000, -86400000 * 9, 86400000]) {
    world.clock += jump;
    await world.pass(10000);
    tab.happens("visibilitychange");
    world.live[0].tell(envelope(world.now));
    world.last("websocket").works(cursor(1));
  }
  assert.deepEqual([tab.data, tab.states, world.live.length], [[10000, 20000, 30000], ["open websocket"], 1]);
});
