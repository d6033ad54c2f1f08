/* Subscriptions of one page share one connection, whose channels are their union, and each has a cursor of its own. */
"use strict";

const {assert, cursor, envelope, scenario, throwing} = require("./world.js");

const OTHER_EPOCH = "bbbbbbbb";

/** Channels of live connections. */
function channels(world) {
  return world.live.map(({url}) => new URL(url).pathname.split("/").pop());
}

function data(all) {
  return all.map((each) => each.data);
}

/** A page, alone, whose subscriptions follow one channel each, and whose connection has delivered. */
async function page(world, names, options = {}) {
  const all = [], shared = {shareTabs: false, transports: ["websocket"], cursor: cursor(1), ...options};
  for (const name of names) {
    const url = `/channels/${name}`;
    all.push(all.length ? all[0].beside(shared, url) : world.open(shared, url));
  }
  await world.pass(0);
  world.live[0].works(cursor(1));
  all.join = (name, more) => {
    const other = all[0].beside({...shared, ...more}, `/channels/${name}`);
    all.push(other);
    return other;
  };
  return all;
}

for (const transport of ["websocket", "eventsource", "longpoll"]) {
  scenario(`${transport}: eight subscriptions of a page have one connection, and each sees its own`, async (world) => {
    const names = Array.from({length: 8}, (_, i) => `c${i}`), all = await page(world, names, {transports: [transport]});
    assert.deepEqual(channels(world), [String(names)]);
    world.live[0].tell(...names.map((name, i) => envelope(2 + i, {channel: name})));
    assert.deepEqual(data(all), names.map((_, i) => [2 + i]));
    assert.deepEqual(all.map((each) => each.cursor), Array(8).fill(cursor(9)));
    assert.deepEqual(all.map((each) => each.states), Array(8).fill([`open ${transport}`]));
  });
}

scenario("subscriptions of the same channel each see every message", async (world) => {
  const all = await page(world, ["a", "a"]);
  world.live[0].tell(envelope(2, {channel: "a"}));
  assert.deepEqual([data(all), channels(world)], [[[2], [2]], ["a"]]);
});

scenario("all that is added in one turn is one change of the connection", async (world) => {
  const all = await page(world, ["a"]);
  ["b", "c", "d"].forEach((name) => all.join(name));
  assert.equal(world.connections.length, 1);
  await world.pass(0);
  assert.deepEqual([world.connections.length, channels(world)], [2, ["a,b,c,d"]]);
});

scenario("one that comes late says “open” once a connection has its channels", async (world) => {
  const all = await page(world, ["a"]), late = all.join("b");
  await world.pass(0);
  assert.deepEqual([late.subscription.state, all[0].subscription.state], ["connecting", "open"]);
  world.live[0].works(cursor(1));
  assert.deepEqual([late.states, all[0].states], [["open websocket"], ["open websocket"]]);
  const same = all.join("b");
  assert.deepEqual([same.states, same.subscription.state], [[], "open"]);
  await world.pass(0);
  assert.deepEqual([same.states, world.live.length], [["open websocket"], 1]);
});

scenario("a connection without its channels does not move a subscription", async (world) => {
  const all = await page(world, ["a"]), late = all.join("b");
  world.live[0].tell(envelope(3, {channel: "a"})).ping(cursor(5));
  assert.deepEqual([all[0].cursor, late.cursor], [cursor(5), cursor(1)]);
  await world.pass(0);
  assert.equal(world.live[0].query.cursor, cursor(1));
  world.live[0].works(cursor(1)).tell(envelope(2, {channel: "b"}), envelope(3, {channel: "a"}));
  assert.deepEqual(data(all), [[3], [2]]);
});

scenario("one with an older cursor makes the connection go back, and nobody sees anything twice", async (world) => {
  const all = await page(world, ["a"]);
  world.live[0].tell(envelope(2, {channel: "a"}), envelope(3, {channel: "a"}));
  all.join("a", {cursor: cursor(1)});
  await world.pass(0);
  assert.equal(world.live[0].query.cursor, cursor(1));
  world.live[0].works(cursor(1)).tell(...[2, 3, 4].map((number) => envelope(number, {channel: "a"})));
  assert.deepEqual(data(all), [[2, 3, 4], [2, 3, 4]]);
});

scenario("one that begins from now begins where the connection is", async (world) => {
  const all = await page(world, ["a"]);
  world.live[0].ping(cursor(7));
  const late = all.join("b", {cursor: undefined});
  assert.equal(late.cursor, cursor(7));
  await world.pass(0);
  assert.equal(world.live[0].query.cursor, cursor(7));
});

scenario("a reset is told to those who follow one of its channels, and only moves the others", async (world) => {
  const all = await page(world, ["a", "b", "c"]);
  world.live[0].reset(cursor(9), {channels: ["a", "b"]}).tell(envelope(10, {channel: "c"}));
  assert.deepEqual(all.map((each) => each.resets.map((reset) => reset.channels)), [[["a"]], [["b"]], []]);
  assert.deepEqual([data(all), all[0].cursor], [[[], [], [10]], cursor(10)]);
});

scenario("a reset for one that came back from long ago is not about the others", async (world) => {
  const all = await page(world, ["a"]);
  world.live[0].ping(cursor(900));
  all.join("b", {cursor: cursor(2)});
  await world.pass(0);
  world.live[0].works(cursor(2)).reset(cursor(900), {channels: ["a", "b"]}).tell(envelope(901, {channel: "a"}));
  assert.deepEqual([all.map((each) => each.resets.length), all[0].data], [[0, 1], [901]]);
});

scenario("“earliest”, and a cursor of another epoch, have a connection of their own until they can join", async (world) => {
  for (const [begin, open] of [
    ["earliest", (connection) => connection.works("earliest").tell(envelope(3, {channel: "b"})).ping(cursor(5))],
    [cursor(7, OTHER_EPOCH), (connection) => connection.works("00000000-000000000000000").reset(cursor(5), {channels: ["b"]})]
  ]) {
    const all = await page(world, ["a"]), other = all.join("b", {cursor: begin});
    world.live[0].tell(envelope(2, {channel: "a"}));
    await world.pass(0);
    assert.deepEqual([channels(world), world.live[1].query.cursor], [["a", "b"], begin]);
    open(world.live[1]);
    await world.pass(0);
    assert.deepEqual(channels(world), ["a,b"]);
    world.live[0].works(cursor(2)).tell(envelope(6, {channel: "b"}));
    assert.deepEqual([other.data.at(-1), other.resets.length], [6, begin === "earliest" ? 0 : 1]);
    all.forEach((each) => each.subscription.close());
  }
});

scenario("of several with “earliest” one goes on, and the others join it", async (world) => {
  const all = [world.openAlone({cursor: "earliest", transports: ["websocket"]}, "/channels/a")];
  for (const name of ["b", "c"]) {
    all.push(all[0].beside({shareTabs: false, cursor: "earliest", transports: ["websocket"]}, `/channels/${name}`));
  }
  assert.deepEqual(channels(world), ["a", "b", "c"]);
  world.live.slice().forEach((connection) => connection.works(cursor(4)).ping(cursor(4)));
  await world.pass(0);
  assert.deepEqual([channels(world), world.live[0].query.cursor], [["a,b,c"], cursor(4)]);
});

scenario("the last that closes takes the connection with it, one that is left keeps it", async (world) => {
  const all = await page(world, ["a", "b"]);
  all[0].subscription.close();
  world.live[0].works(cursor(1)).tell(envelope(2, {channel: "b"}));
  await world.pass(6000);
  assert.deepEqual([data(all), channels(world), all[1].states], [[[], [2]], ["b"], ["open websocket"]]);
  all[1].subscription.close();
  await world.pass(100000);
  assert.deepEqual([world.live, world.isQuiet], [[], true]);
});

scenario("a component that goes and comes again at once costs no connection", async (world) => {
  const all = await page(world, ["a", "b"]), {length} = world.connections;
  world.live[0].works(cursor(1));
  all[1].subscription.close();
  await world.pass(1000);
  all.join("b", {cursor: undefined});
  await world.pass(10000);
  world.live[0].tell(envelope(2, {channel: "b"}));
  assert.deepEqual([world.connections.length, all[2].data, all[2].states], [length, [2], ["open websocket"]]);
});

scenario("more than 64 channels are two connections", async (world) => {
  const names = Array.from({length: 70}, (_, i) => `c${i}`), all = await page(world, names);
  assert.deepEqual(channels(world).map((each) => each.split(",").length), [64, 6]);
  world.live.forEach((connection) => connection.works(cursor(1)));
  all[0].subscription.add("c70", "c71");
  await world.pass(6000);
  assert.deepEqual(channels(world).map((each) => each.split(",").length).sort(), [63, 9]);
});

scenario("a channel that is refused ends the subscription that follows it; the others share again", async (world) => {
  const all = await page(world, ["a", "b"]), secret = all.join("secret");
  await world.pass(0);
  world.live[0].refuse(403, "secret is not yours");
  assert.deepEqual(channels(world), ["a", "b", "secret"]);
  world.live[2].refuse(403, "secret is not yours");
  world.live.slice().forEach((connection) => connection.works(cursor(1)));
  await world.pass(0);
  assert.deepEqual(channels(world), ["a,b"]);
  world.live[0].works(cursor(1)).tell(envelope(2, {channel: "a"}), envelope(3, {channel: "b"}));
  assert.deepEqual([data(all), secret.states, secret.reasons], [[[2], [3], []], ["closed"], ["secret is not yours"]]);
});

scenario("a server that refuses what it lets each have is not asked for all of them for ever", async (world) => {
  const all = await page(world, ["a", "b"]);
  world.onconnect = (connection) => world.later(1, () => {
    if (connection.url.includes(",") || connection.url.includes("%2C")) connection.refuse(403, "one at a time");
    else connection.works(cursor(1));
  });
  all.join("c");
  await world.pass(600000);
  assert(world.connections.length < 100, String(world.connections.length));
  assert.deepEqual(channels(world).sort(), ["a", "b", "c"]);
});

for (const [what, options, url] of [
  ["another query", {}, "/channels/b?tenant=7"],
  ["another token", {token: "t2"}],
  ["another function for tokens", {token: () => "t1"}],
  ["other transports", {transports: ["websocket", "longpoll"]}],
  ["another backoff", {retryMax: 5}],
  ["cookies", {withCredentials: true}],
  ["other surroundings", {env: {}}]
]) {
  scenario(`a subscription with ${what} has a connection of its own`, async (world) => {
    const [first] = await page(world, ["a"], {token: "t1"});
    first.beside({shareTabs: false, transports: ["websocket"], token: "t1", ...options}, url || "/channels/b");
    await world.pass(0);
    assert.equal(world.live.length, 2);
  });
}

scenario("one function for tokens is asked once for all, and again for all when the token expires", async (world) => {
  let count = 0;
  const all = await page(world, ["a", "b", "c"], {token: () => `t${++count}`});
  world.live[0].works(cursor(1)).expire(cursor(3));
  await world.pass(0);
  assert.deepEqual([count, world.live[0].query.token, channels(world)], [2, "t2", ["a,b,c"]]);
});

scenario("without a token all wait, and the last that closes ends the asking", async (world) => {
  const all = [world.openAlone({token: throwing("no session")}, "/channels/a")];
  all.push(all[0].beside({shareTabs: false, token: all[0].subscription._options.token}, "/channels/b"));
  await world.pass(10000);
  assert.deepEqual(all.map((each) => each.states[0]), ["waiting", "waiting"]);
  all.forEach((each) => each.subscription.close());
  world.errors.splice(0);
  await world.pass(100000);
  assert(world.isQuiet);
});

scenario("what happens to the connection is told to all, and a network that changed is one new connection", async (world) => {
  const all = await page(world, ["a", "b"]);
  world.live[0].works(cursor(1));
  const {length} = world.connections;
  all[0].happens("online");
  assert.equal(world.connections.length, length + 1);
  world.last("websocket").works(cursor(1)).end(1011, "the server fell over");
  assert.deepEqual(all.map((each) => each.reasons.at(-1)), Array(2).fill("the server fell over"));
  ["pagehide", "pageshow"].forEach((name) => all[0].happens(name));
  await world.pass(0);
  assert.deepEqual(channels(world), ["a,b"]);
});

scenario("a callback may close, and add, what it likes", async (world) => {
  const all = await page(world, ["a"]), seen = [];
  const second = all.join("a"), third = all.join("a");
  await world.pass(0);
  world.live[0].works(cursor(1));
  all.join("a", {onMessage: () => {
    second.subscription.close();
    all.join("a", {cursor: undefined, onMessage: (message) => seen.push(message.data)});
  }});
  await world.pass(0);
  world.live[0].tell(envelope(2, {channel: "a"}));
  world.live[0].tell(envelope(3, {channel: "a"}));
  await world.pass(0);
  assert.deepEqual([second.data, third.data, seen[0]], [[2], [2, 3], 3]);
});

// With other tabs

scenario("pages with several subscriptions share one connection, too", async (world) => {
  const shared = {cursor: cursor(1), transports: ["websocket"]};
  const one = world.open(shared, "/channels/a"), all = [one, one.beside(shared, "/channels/b")];
  await world.pass(10);
  world.live[0].works(cursor(1));
  const other = world.open(shared, "/channels/b");
  all.push(other, other.beside(shared, "/channels/c"));
  await world.pass(10);
  assert.deepEqual(channels(world), ["a,b,c"]);
  world.live[0].works(cursor(1)).tell(...["a", "b", "c"].map((name, i) => envelope(2 + i, {channel: name})));
  await world.pass(10);
  assert.deepEqual(data(all), [[2], [3], [3], [4]]);
  one.crash();
  await world.pass(10);
  assert.deepEqual([channels(world), world.live[0].query.cursor], [["b,c"], cursor(4)]);
});

scenario("what is closed leaves nothing behind, however often a page subscribes", async (world) => {
  const tab = world.tab(), counts = {};
  for (const target of [tab.page, tab.document]) {
    const {addEventListener, removeEventListener} = target;
    target.addEventListener = (name, ...rest) => {
      counts[name] = (counts[name] || 0) + 1;
      addEventListener.call(target, name, ...rest);
    };
    target.removeEventListener = (name, ...rest) => {
      counts[name]--;
      removeEventListener.call(target, name, ...rest);
    };
  }
  for (let cycle = 0; cycle < 50; cycle++) {
    const all = ["a", "b"].map((name) => tab.beside({shareTabs: cycle % 2 > 0}, `/channels/${name}`));
    await world.pass(cycle % 3 && 40);
    all.forEach((each) => each.subscription.close());
  }
  await world.pass(1000);
  assert.deepEqual([world.live, world.isQuiet, world.channels.size, world.locks.holder()], [[], true, 0, undefined]);
  assert(Object.values(counts).every((count) => count === 0), JSON.stringify(counts));
});
