"use strict";

const {assert, cursor, envelope, scenario, throwing} = require("./world.js");

const PATIENCE = 33750; // ms: two heartbeats of 15 s, and half of what is added at random

/** So many tabs of one origin, the first of which has the connection. */
async function tabs(world, count, options) {
  const all = [];
  while (all.length < count) {
    all.push(world.open({cursor: cursor(1), ...options}));
    await world.pass(10);
    if (all.length === 1) world.last("websocket").works(cursor(1));
  }
  return all;
}

async function tell(world, ...numbers) {
  world.last("websocket").tell(...numbers.map((number) => envelope(number)));
  await world.pass(10);
}

/** Of live connections. */
function paths(world) {
  return world.live.map(({url}) => new URL(url).pathname);
}

function data(all) {
  return all.map((tab) => tab.data);
}

scenario("several tabs have one connection, and each sees every message", async (world) => {
  const all = await tabs(world, 3);
  await tell(world, 2, 3);
  assert.deepEqual([world.connections.length, data(all)], [1, [[2, 3], [2, 3], [2, 3]]]);
  assert.deepEqual(all.map((tab) => tab.cursor), [cursor(3), cursor(3), cursor(3)]);
});

scenario("a tab that comes late learns at once how things are", async (world) => {
  await tabs(world, 1);
  await tell(world, 2);
  const late = world.open();
  await world.pass(2);
  assert.deepEqual([late.states, late.cursor, world.connections.length], [["open websocket"], cursor(2), 1]);
  await tell(world, 3);
  assert.deepEqual(late.data, [3]);
});

scenario("what happens to the connection, all tabs are told", async (world) => {
  const all = await tabs(world, 2);
  world.last("websocket").end(1011, "the server fell over");
  await world.pass(500);
  world.last("websocket").works(cursor(1));
  await world.pass(10);
  assert.deepEqual(all[1].states, ["open websocket", "waiting", "connecting", "open websocket"]);
  assert.deepEqual(all[1].states, all[0].states);
  assert.equal(all[1].reasons[1], "the server fell over");
});

for (const [how, leave] of [
  ["is closed", (tab) => tab.subscription.close()],
  ["crashes", (tab) => tab.crash()],
  ["is left for another page", (tab) => tab.happens("pagehide")]
]) {
  scenario(`when the leader ${how}, the next goes on from its cursor: nothing is lost or repeated`, async (world) => {
    const [leader, ...others] = await tabs(world, 3);
    await tell(world, 2);
    leave(leader);
    assert.equal(world.live.length, 0);
    await world.pass(10);
    assert.deepEqual([world.live.length, world.last("websocket").query.cursor], [1, cursor(2)]);
    world.last("websocket").works(cursor(2));
    await tell(world, 3, 4);
    assert.deepEqual(data(others), [[2, 3, 4], [2, 3, 4]]);
  });
}

scenario("nor when it died after one had heard a message and before another had", async (world) => {
  const [leader, second, third] = await tabs(world, 3);
  world.last("websocket").tell(envelope(2));
  leader.crash((tab) => tab === second);
  await world.pass(1200); // the third asks again, since its first question may be on its way
  assert.deepEqual([data([second, third]), world.using.length], [[[2], []], 1]);
  assert.equal(world.last("websocket").query.cursor, cursor(1));
  world.last("websocket").works(cursor(1));
  await tell(world, 2, 3);
  assert.deepEqual(data([second, third]), [[2, 3], [2, 3]]);
});

scenario("a tab that is behind makes the leader go back, and nobody sees anything twice", async (world) => {
  const all = await tabs(world, 2);
  await tell(world, 2, 3, 4);
  const behind = world.open({cursor: cursor(2)});
  await world.pass(10);
  assert.deepEqual([world.live.length, world.last("websocket").query.cursor], [1, cursor(2)]);
  world.last("websocket").works(cursor(2));
  await tell(world, 3, 4, 5);
  assert.deepEqual(data([...all, behind]), [[2, 3, 4, 5], [2, 3, 4, 5], [3, 4, 5]]);
  assert.deepEqual(all[0].states, ["open websocket"]);
});

scenario("one that knows where it stands loses nothing to a leader that began from now", async (world) => {
  const leader = world.open(), other = world.open({cursor: cursor(5)});
  await world.pass(10);
  world.last("websocket").works(cursor(9));
  await world.pass(1000);
  assert.equal(world.last("websocket").query.cursor, cursor(5));
  world.last("websocket").works(cursor(5));
  await tell(world, 6, 9, 10);
  assert.deepEqual(data([leader, other]), [[10], [6, 9, 10]]);
});

scenario("a tab that comes back from a log that is gone is told of the reset, the others are not", async (world) => {
  const all = await tabs(world, 2);
  for (const epoch of ["00oldlog", "00oldest"]) {
    all.push(world.open({cursor: cursor(70, epoch)}));
    await world.pass(2000); // time to disagree
    assert.deepEqual(world.live.map(({query}) => query.cursor), [cursor(70, epoch)]);
    world.last("websocket").works("00000000-000000000000000").reset(cursor(1));
    await world.pass(10);
  }
  await tell(world, 2);
  assert.deepEqual(all.map((tab) => tab.resets.length), [0, 0, 1, 1]);
  assert.deepEqual(data(all), [[2], [2], [2], [2]]);
});

scenario("a reset to an earlier cursor (the log has lost its end) is told to all tabs", async (world) => {
  const all = await tabs(world, 2);
  await tell(world, 900);
  all.push(world.open({cursor: cursor(900)}));
  await world.pass(10);
  world.last("websocket").reset(cursor(2));
  await tell(world, 3, 4);
  assert.deepEqual(all.map((tab) => tab.resets.length), [1, 1, 1]);
  assert.deepEqual(data(all), [[900, 3, 4], [900, 3, 4], [3, 4]]);
});

scenario("a reset of a connection that is behind, and not past a tab, is not about that tab", async (world) => {
  const all = await tabs(world, 2);
  await tell(world, 900);
  all.push(world.open({cursor: cursor(1)}));
  await world.pass(10);
  assert.equal(world.last("websocket").query.cursor, cursor(1));
  world.last("websocket").works(cursor(1)).reset(cursor(900));
  await tell(world, 901);
  assert.deepEqual(all.map((tab) => tab.resets.length), [0, 0, 1]);
  assert.deepEqual(data(all), [[900, 901], [900, 901], [901]]);
});

scenario("a reset that is past a tab is told to it, too, wherever the connection began", async (world) => {
  const all = await tabs(world, 1);
  await tell(world, 900);
  all.push(world.open({cursor: cursor(1)}));
  await world.pass(10);
  world.last("websocket").works(cursor(1)).reset(cursor(950));
  await tell(world, 951);
  assert.deepEqual([all.map((tab) => tab.resets.length), data(all)], [[1, 1], [[900, 951], [951]]]);
});

scenario("a leader that stands in a log that is gone is told so, though others know the new one", async (world) => {
  const leader = world.open({cursor: cursor(70, "00oldlog")}), other = world.open({cursor: cursor(1)});
  await world.pass(10);
  world.last("websocket").works("00000000-000000000000000").reset(cursor(1));
  await tell(world, 2);
  assert.deepEqual([leader.resets.length, other.resets.length, data([leader, other])], [1, 0, [[2], [2]]]);
});

scenario("who asks for the earliest is alone: others must be told of what it need not know", async (world) => {
  await tabs(world, 1);
  const tab = world.open({cursor: "earliest"});
  await world.pass(10);
  assert.deepEqual(world.live.map(({query}) => query.cursor), [cursor(1), "earliest"]);
  assert(world.live[1].tab === tab);
});

scenario("a leader that knows not yet which of two logs is gone waits for the server to say it", async (world) => {
  world.open({cursor: cursor(70, "00oldlog")});
  await world.pass(10);
  world.open({cursor: cursor(1)});
  await world.pass(10);
  assert.equal(world.connections.length, 1);
  world.last("websocket").works("00000000-000000000000000").reset(cursor(1));
  await world.pass(10);
  assert.equal(world.connections.length, 1);
});

scenario("two subscriptions of one page share, too", async (world) => {
  const tab = world.open();
  tab.follow();
  await world.pass(10);
  world.last("websocket").works(cursor(1)).tell(envelope(2));
  await world.pass(10);
  assert.deepEqual([tab.data, world.live.length], [[2, 2], 1]);
});

for (const [what, options, url] of [
  ["another query", {}, "/channels/chat?tenant=7"],
  ["another token", {token: "t2"}],
  ["other transports", {transports: ["websocket", "longpoll"]}],
  ["`shareTabs: false`", {shareTabs: false}]
]) {
  scenario(`a tab with ${what} does not share`, async (world) => {
    await tabs(world, 1, {token: "t1"});
    world.open({token: "t1", ...options}, url);
    await world.pass(10);
    assert.equal(world.live.length, 2);
  });
}

// Without Web Locks

/** The first of so many tabs has the connection. */
async function leasing(world, count, url) {
  let seed = 0;
  world.random = () => seed = (seed + 0.37) % 1; // tabs differ by it
  const all = Array.from({length: count}, () => world.open({cursor: cursor(1), env: {locks: null}}, url));
  await world.pass(100);
  world.last("websocket").works(cursor(1));
  await world.pass(10);
  return all;
}

function leases(world) {
  return Object.keys(world.storage.kept).filter((name) => name.includes("lease"));
}

scenario("without Web Locks (http:) tabs share one connection, too, also if they open at once", async (world) => {
  const all = await leasing(world, 8);
  await tell(world, 2, 3);
  assert.deepEqual([world.connections.length, data(all)], [1, Array(8).fill([2, 3])]);
  assert.match(String(leases(world)), /^pushcompat\.lease \w+$/);
  all.forEach((tab) => tab.subscription.close());
  await world.pass(100000);
  assert.deepEqual([world.live, leases(world), world.channels.size, world.isQuiet], [[], [], 0, true]);
});

for (const [how, leave] of [
  ["is closed", (tab) => tab.subscription.close()],
  ["is left for another page", (tab) => tab.happens("pagehide")],
  ["crashes", (tab) => tab.crash()]
]) {
  scenario(`without Web Locks, when the leader ${how}, another one goes on from its cursor`, async (world) => {
    const all = await leasing(world, 3), leader = world.live[0].tab;
    await tell(world, 2);
    leave(leader);
    await world.until(() => world.live.length);
    await world.pass(1000);
    assert.deepEqual([world.live.length, world.live[0].query.cursor], [1, cursor(2)]);
    world.live[0].works(cursor(2));
    await tell(world, 3);
    assert.deepEqual(data(all.filter((tab) => tab !== leader)), [[2, 3], [2, 3]]);
  });
}

scenario("without Web Locks a leader that was frozen and robbed follows when it thaws", async (world) => {
  const all = await leasing(world, 2), leader = world.live[0].tab;
  leader.freeze();
  await world.pass(38000);
  const next = world.live.find(({tab}) => tab !== leader);
  next.works(cursor(1)).tell(envelope(2));
  leader.thaw();
  await world.pass(3000);
  assert.deepEqual([data(all), world.live], [[[2], [2]], [next]]);
});

scenario("what a browser that crashed has left behind is taken over by the next tab", async (world) => {
  const [tab] = await leasing(world, 1);
  tab.crash();
  assert.equal(leases(world).length, 1);
  const fresh = world.open({env: {locks: null}});
  await world.pass(2600);
  assert.deepEqual(world.live.map((each) => each.tab), [fresh]);
});

scenario("where localStorage is full or denied a tab has a connection of its own", async (world) => {
  const full = {...world.storage, setItem: throwing("QuotaExceededError")};
  for (const storage of [full, null]) world.open({env: {locks: null, storage}});
  await world.pass(100);
  assert.equal(world.live.length, 2);
});

for (const [what, env] of [
  ["without BroadcastChannel", {BroadcastChannel: null}],
  ["where BroadcastChannel throws", {BroadcastChannel: throwing("opaque origin")}],
  ["where locks are refused", {locks: {request: async () => throwing("SecurityError")()}}]
]) {
  scenario(`${what}, each tab has a connection of its own`, async (world) => {
    const all = [world.open({env}), world.open({env})];
    await world.pass(10);
    assert.equal(world.live.length, 2);
    world.live.forEach((connection) => connection.works(cursor(1)).tell(envelope(2)));
    assert.deepEqual(data(all), [[2], [2]]);
    await world.pass(100000);
    all.forEach((tab) => tab.subscription.close());
    assert.deepEqual(world.live, []);
  });
}

// A leader that says nothing

scenario("a leader that was silent for two heartbeats, its tab frozen, loses the lock", async (world) => {
  const [leader, other] = await tabs(world, 2);
  await tell(world, 2);
  leader.freeze();
  await world.pass(PATIENCE - 20);
  assert(world.locks.holder() === leader);
  await world.pass(20);
  assert.deepEqual([world.locks.holder() === other, world.locks.waiting], [true, []]);
  world.last("websocket").works(cursor(2));
  await tell(world, 3);
  assert.deepEqual([other.data, world.last("websocket").query.cursor], [[2, 3], cursor(2)]);
});

scenario("two heartbeats are those of the server, also for a tab that has just come", async (world) => {
  const leader = world.open();
  await world.pass(10);
  world.last("websocket").works(cursor(1), {heartbeat: 4});
  const late = world.open();
  await world.pass(10);
  leader.freeze();
  await world.pass(8980);
  assert(world.locks.holder() === leader);
  await world.pass(30);
  assert(world.locks.holder() === late);
});

scenario("when it thaws it follows, and hears what it has missed", async (world) => {
  const [leader, other] = await tabs(world, 2);
  leader.freeze();
  await world.pass(PATIENCE);
  world.last("websocket").works(cursor(1));
  await tell(world, 2, 3);
  leader.thaw();
  await world.pass(10);
  const since = world.posts.length;
  await tell(world, 4);
  assert.deepEqual([leader.data, leader.subscription.state], [[2, 3, 4], "open"]);
  await world.pass(20000);
  assert.deepEqual([world.live.length, world.posts.slice(since).every(({tab}) => tab === other)], [1, true]);
  other.subscription.close();
  await world.pass(10);
  assert(world.locks.holder() === leader);
});

scenario("it also takes the lock back from one that falls silent in its turn", async (world) => {
  const [leader, other] = await tabs(world, 2);
  leader.freeze();
  await world.pass(PATIENCE);
  other.freeze();
  leader.thaw();
  await world.pass(PATIENCE + 20);
  assert(world.locks.holder() === leader);
});

scenario("a leader that does not answer a new tab for 2.5 s loses the lock to it", async (world) => {
  const [leader] = await tabs(world, 1);
  leader.freeze();
  const fresh = world.open({cursor: cursor(1)});
  await world.pass(2499);
  assert(world.locks.holder() === leader);
  await world.pass(10);
  assert(world.locks.holder() === fresh);
});

scenario("of many tabs only one takes the lock, and the others hear of it in time", async (world) => {
  const moments = [0.9, 0.2, 0.7];
  const [leader, ...others] = await tabs(world, 4);
  world.random = () => moments[0] = (moments[0] + 0.37) % 1;
  await tell(world, 2);
  leader.freeze();
  await world.pass(60000);
  assert.equal(others.filter((tab) => world.connections.some((each) => each.tab === tab)).length, 1);
});

scenario("a leader whose timers the browser slows down is known to live by what the server says", async (world) => {
  const leader = world.tab(), {setTimeout} = leader.env;
  leader.env.setTimeout = (action, ms) => setTimeout(action, Math.max(ms, 240000));
  leader.follow();
  await world.pass(10);
  world.last("websocket").works(cursor(1));
  world.open();
  for (let ping = 0; ping < 12; ping++) {
    await world.pass(15000);
    world.last("websocket").ping(cursor(1));
  }
  assert(world.locks.holder() === leader);
});

scenario("a leader that can not connect says that it lives", async (world) => {
  const leader = world.open({retryMax: 100000});
  await world.pass(10);
  world.last("websocket").works(cursor(1), {heartbeat: 4});
  const other = world.open();
  await world.pass(10);
  world.onconnect = (connection) => world.later(1, () => connection.end());
  world.last("websocket").end();
  await world.pass(600000);
  assert(world.locks.holder() === leader);
  assert.match(other.subscription.state, /waiting|connecting/);
});

scenario("who is in step says nothing, and who is behind asks once a second", async (world) => {
  const [leader] = await tabs(world, 3);
  const asked = () => world.posts.filter(({kind}) => kind === "hello").length;
  assert.equal(asked(), 3);
  for (let ping = 0; ping < 4; ping++) {
    await world.pass(14000);
    world.last("websocket").ping(cursor(1));
  }
  assert.equal(asked(), 3);
  world.channels.forEach((port) => { port.isOpen = port.tab === leader; }); // they miss something
  await tell(world, 2);
  world.channels.forEach((port) => { port.isOpen = true; });
  await tell(world, 3, 4, 5, 6);
  assert.deepEqual([asked(), world.last("websocket").query.cursor], [5, cursor(1)]);
});

// Locks and channels are given back

scenario("“pagehide” gives up lock and channel: they too keep a page out of the back-forward cache", async (world) => {
  const [leader, other] = await tabs(world, 2);
  other.happens("pagehide");
  await world.pass(10);
  assert.deepEqual([world.channels.size, world.locks.waiting], [1, []]);
  leader.happens("pagehide");
  await world.pass(100000);
  assert.deepEqual([world.channels.size, world.locks.holder(), world.live], [0, undefined, []]);
  other.happens("pageshow");
  await world.pass(10);
  assert(world.locks.holder() === other);
  leader.happens("pageshow");
  await world.pass(10);
  world.last("websocket").works(cursor(1));
  await tell(world, 2);
  assert.deepEqual([data([leader, other]), world.live.length], [[[2], [2]], 1]);
});

scenario("a tab that is closed while it waits takes nothing with it", async (world) => {
  const [leader, second, third] = await tabs(world, 3);
  second.subscription.close();
  leader.subscription.close();
  await world.pass(10);
  assert(world.locks.holder() === third);
  third.subscription.close();
  await world.pass(100000);
  assert.deepEqual([world.channels.size, world.locks.holder(), world.live], [0, undefined, []]);
});

scenario("a tab that is closed just when it is given the lock gives it back", async (world) => {
  const [leader, second, third] = await tabs(world, 3);
  leader.subscription.close();
  second.freeze();
  await world.pass(10); // it has the lock and does not know it
  second.subscription.close();
  second.thaw();
  await world.pass(10);
  assert(world.locks.holder() === third);
});

scenario("tabs add channels for themselves", async (world) => {
  const [leader, other] = await tabs(world, 2);
  other.subscription.add("news");
  await world.pass(10);
  assert.deepEqual(paths(world), ["/channels/chat,news"]);
  world.last("websocket").works(cursor(1)).tell(envelope(2, {channel: "news"}));
  await world.pass(10);
  assert.deepEqual([data([leader, other]), leader.cursor], [[[], [2]], cursor(2)]);
});

scenario("a tab with another channel shares, too; each sees its own", async (world) => {
  const all = await tabs(world, 1);
  await tell(world, 2);
  all.push(world.open({}, "/channels/news"));
  await world.pass(10);
  assert.deepEqual([paths(world), world.live[0].query.cursor], [["/channels/chat,news"], cursor(2)]);
  assert.deepEqual(all[1].states, []);
  world.last("websocket").works(cursor(2)).tell(envelope(3), envelope(4, {channel: "news"}));
  await world.pass(10);
  assert.deepEqual([data(all), all.map((tab) => tab.states)], [[[2, 3], [4]], [["open websocket"], ["open websocket"]]]);
  assert.deepEqual(all.map((tab) => tab.cursor), [cursor(4), cursor(4)]);
});

scenario("what comes before the leader has heard of a tab's channel does not move that tab", async (world) => {
  const [leader] = await tabs(world, 1), news = world.open({cursor: cursor(1)}, "/channels/news");
  world.last("websocket").ping(cursor(5));
  await world.pass(1);
  assert.equal(news.cursor, cursor(1));
  await world.pass(1);
  assert.deepEqual([leader.cursor, world.live[0].query.cursor], [cursor(5), cursor(1)]);
  world.last("websocket").works(cursor(1)).tell(envelope(2, {channel: "news"}));
  await world.pass(10);
  assert.deepEqual(data([leader, news]), [[], [2]]);
});

scenario("channels of tabs that are gone are dropped some seconds later", async (world) => {
  const [leader] = await tabs(world, 1), news = world.open({}, "/channels/news");
  await world.pass(10);
  world.last("websocket").works(cursor(1));
  news.subscription.close();
  await world.pass(4000);
  assert.deepEqual(paths(world), ["/channels/chat,news"]);
  await world.pass(2000);
  assert.deepEqual([paths(world), leader.states], [["/channels/chat"], ["open websocket"]]);
});

scenario("the next leader asks for the channels of all tabs, too", async (world) => {
  const [leader, ...others] = await tabs(world, 2);
  others.push(world.open({}, "/channels/news"));
  await world.pass(10);
  world.last("websocket").works(cursor(1));
  await world.pass(10);
  leader.crash();
  await world.pass(1100);
  world.last("websocket").works(cursor(1)).tell(envelope(2), envelope(3, {channel: "news"}));
  await world.pass(10);
  assert.deepEqual([paths(world), data(others)], [["/channels/chat,news"], [[2], [3]]]);
});

scenario("tabs whose channels do not fit into one request share a second one", async (world) => {
  const names = (name, length) => Array.from({length}, (_, i) => name + i), all = [];
  let seed = 0;
  world.random = () => seed = (seed + 0.37) % 1; // tabs differ by it
  for (const follows of [names("a", 40), names("b", 40), names("c", 20), names("d", 20)]) {
    all.push(world.open({cursor: cursor(1)}, `/channels/${follows}`));
    await world.pass(10);
    world.live.at(-1).works(cursor(1));
    await world.pass(10);
  }
  const [first, second] = [[...names("a", 40), ...names("c", 20)], [...names("b", 40), ...names("d", 20)]];
  assert.deepEqual(paths(world).sort(), [`/channels/${first}`, `/channels/${second}`]);
  for (const connection of world.live) connection.works(cursor(1));
  const of = (name) => world.live.find(({url}) => url.includes(name));
  of("c7").tell(envelope(2, {channel: "c7"}), envelope(3, {channel: "a7"}));
  of("d7").tell(envelope(2, {channel: "d7"}), envelope(3, {channel: "b7"}));
  await world.pass(10);
  assert.deepEqual(data(all), [[3], [3], [2], [2]]);
  all[0].subscription.add(...names("e", 20));
  await world.pass(10);
  assert.equal(world.live.length, 3);
});

scenario("a channel that is refused ends the tab that follows it, and no other", async (world) => {
  const [chat] = await tabs(world, 1, {transports: ["websocket"]});
  const secret = world.open({transports: ["websocket"]}, "/channels/secret");
  await world.pass(10);
  world.last("websocket").refuse(403, "not yours");
  await world.pass(10);
  assert.deepEqual(paths(world), ["/channels/chat", "/channels/secret"]);
  world.live.find(({url}) => url.includes("secret")).refuse(403, "not yours");
  world.live[0].works(cursor(1));
  await world.pass(10);
  world.live[0].works(cursor(1)).tell(envelope(2));
  assert(world.locks.holder() === chat); // it shares again
  assert.deepEqual([secret.states.at(-1), secret.reasons.at(-1)], ["closed", "not yours"]);
  assert.deepEqual([chat.data, chat.subscription.state], [[2], "open"]);
});

// Refusals

scenario("what the server refuses for good is refused to all tabs", async (world) => {
  const all = await tabs(world, 2);
  world.last("websocket").refuse(403, "not from here");
  await world.untilNext();
  world.last("eventsource").end();
  world.last("longpoll").refuse(403, "not from here");
  await world.pass(100000);
  const closed = ["closed", "not from here"];
  assert.deepEqual(all.map((tab) => [tab.states.at(-1), tab.reasons.at(-1)]), [closed, closed]);
  assert.deepEqual(world.live, []);
});

scenario("when a token has expired each tab asks for one, and they share again", async (world) => {
  let token = "t1";
  const all = await tabs(world, 2, {token: () => token});
  token = "t2";
  world.last("websocket").refuse(401, "the token has expired");
  await world.pass(10);
  assert.deepEqual([world.live.length, world.last("websocket").query.token], [1, "t2"]);
  world.last("websocket").works(cursor(1));
  await tell(world, 2);
  assert.deepEqual(data(all), [[2], [2]]);
});

scenario("“online” in any tab is the leader's to act on", async (world) => {
  const all = await tabs(world, 2);
  all.forEach((tab) => tab.happens("online"));
  assert.deepEqual(world.live.map(({tab}) => tab === all[0]), [true, true]);
});
