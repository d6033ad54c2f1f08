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
    assert.equal(tab.reasons[1], `${transport} fell silent`);
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
  assert.equal(tab.reasons.at(-2), "websocket fell silent");
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

scenario("a server that restarts and rotates everyone at once is not held against the transport", async (world) => {
  const tab = world.openAlone();
  for (let i = 0; i < 9; i++) {
    world.last("websocket").works(cursor(1)).rotate(cursor(1), 100);
    assert.equal(await world.untilNext(), 100);
  }
  assert.deepEqual([tab.states, world.using], [["open websocket"], ["websocket"]]);
});

scenario("when nothing can be had after a rotation, that is a loss like any other", async (world) => {
  const tab = connected(world);
  world.last("websocket").rotate(cursor(1), 100);
  await world.pass(100);
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
  ["408 from the server", (poll) => poll.refuse(408, "too slow")],
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

scenario("websocket: “come back later” (4000) is met with backoff", async (world) => {
  const tab = world.openAlone({transports: ["websocket"]});
  world.last("websocket").refuse(0, "busy");
  assert.deepEqual([tab.states, tab.reasons], [["waiting"], ["busy"]]);
  assert.equal(await world.untilNext(), 250);
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

scenario("“earliest” is asked for until there is a place to stand: else a hole would go untold", async (world) => {
  const tab = connected(world, {cursor: "earliest"});
  assert.deepEqual([world.connections[0].query.cursor, tab.cursor], ["earliest", cursor(1)]);
  world.last("websocket").end();
  await world.untilNext();
  assert.equal(world.last("websocket").query.cursor, cursor(1));
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
