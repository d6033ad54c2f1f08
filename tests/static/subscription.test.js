"use strict";

const {PushCompat, assert, cursor, envelope, scenario, throwing} = require("./world.js");

/** A tab whose WebSocket has delivered. */
function connected(world, options, url) {
  const tab = world.openAlone({transports: ["websocket"], ...options}, url);
  world.last("websocket").works(cursor(1));
  return tab;
}

function paths(world) {
  return world.connections.map(({url}) => new URL(url).pathname);
}

// The URL

for (const [url, address] of [
  ["/channels/chat", "wss://app.example/channels/chat?"],
  ["../channels/chat", "wss://app.example/channels/chat?"],
  ["//push.example/channels/chat", "wss://push.example/channels/chat?"],
  ["http://127.0.0.1:8888/push/channels/a,b", "ws://127.0.0.1:8888/push/channels/a,b?"],
  ["ws://127.0.0.1:8888/channels/a%2Cb", "ws://127.0.0.1:8888/channels/a,b?"],
  ["WSS://push.example/channels/chat?tenant=7#top", "wss://push.example/channels/chat?tenant=7&"]
]) {
  scenario(`${url} is followed at ${address}…`, async (world) => {
    world.openAlone({}, url);
    const {href} = new URL(world.last("websocket").url);
    assert(href.startsWith(address + "transport=websocket&"), href);
  });
}

scenario("a URL without a channel is the page's mistake, said at once", async (world) => {
  assert.throws(() => world.openAlone({}, "/"), /use \/channels\/NAME, not \//);
  for (const nothing of [undefined, null, ""]) {
    assert.throws(() => PushCompat.subscribe(nothing, {env: world.tab().env}), /use \/channels\/NAME, not /);
  }
  assert.throws(() => world.openAlone({}, "/channels/%zz"), /invalid channel name: %zz/);
  assert(world.isQuiet);
});

scenario("options that are null are those that are missing", async (world) => {
  const names = ["transports", "shareTabs", "stagger", "openTimeout", "retryMin", "retryMax", "rememberFor", "upgradeAfter",
    "failures", "cursor", "token", "withCredentials", "onMessage", "onReset", "onState", "last", "signal", "debug"];
  const missing = world.tab().follow({}), tab = world.tab().follow(Object.fromEntries(names.map((name) => [name, null])));
  await world.pass(10);
  assert.equal(world.connections.length, 1); // both are the same, and share it
  await world.pass(4990);
  assert.deepEqual(world.using, ["websocket", "eventsource", "longpoll"]);
  world.last("websocket").works(cursor(1)).tell(envelope(2));
  await world.pass(10);
  assert.deepEqual([missing.data, tab.subscription.cursor], [[2], cursor(2)]);
});

scenario("one transport may be given by its name alone", async (world) => {
  world.openAlone({transports: "longpoll"});
  assert.deepEqual(world.using, ["longpoll"]);
});

// What a page sees of it

scenario("a subscription has its state, transport, cursor and channels", async (world) => {
  const {subscription} = world.openAlone({}, "/channels/a,b");
  const look = () => ({...subscription, see: [subscription.state, subscription.transport, subscription.cursor]}).see;
  assert.deepEqual([look(), subscription.channels], [["connecting", null, ""], ["a", "b"]]);
  world.last("websocket").works(cursor(4));
  assert.deepEqual(look(), ["open", "websocket", cursor(4)]);
  subscription.close();
  subscription.close();
  assert.deepEqual(look(), ["closed", null, cursor(4)]);
});

scenario("onState tells the transport in use, and why the last one was left", async (world) => {
  const changes = [];
  world.openAlone({onState: (change) => changes.push(change)});
  await world.pass(2500);
  world.last("eventsource").works(cursor(1)).end();
  assert.deepEqual(changes, [
    {state: "open", transport: "eventsource", reason: "websocket delivered nothing"},
    {state: "waiting", transport: null, reason: "the event stream ended"}
  ]);
});

scenario("what a callback throws goes to the console, and stops nothing", async (world) => {
  const seen = [], page = (name) => (what) => {
    seen.push(what.data || what.state || name);
    throw new Error(`${name} failed`);
  };
  connected(world, {onMessage: page("onMessage"), onState: page("onState"), onReset: page("onReset")});
  world.last("websocket").tell(envelope(2), envelope(3)).reset(cursor(4)).tell(envelope(5));
  assert.deepEqual(seen, ["open", 2, 3, "onReset", 5]);
  await world.pass(0);
  assert.deepEqual(world.errors.splice(0).map((error) => error.split(" ")[0]),
    ["onState", "onMessage", "onMessage", "onReset", "onMessage"]);
});

scenario("without any callback it works, too", async (world) => {
  const tab = connected(world, {onMessage: undefined, onReset: undefined, onState: undefined});
  world.last("websocket").tell(envelope(2)).reset(cursor(3));
  assert.equal(tab.cursor, cursor(3));
});

// Channels

scenario("a channel is added on a live subscription, which goes on from its cursor", async (world) => {
  const tab = connected(world);
  world.last("websocket").tell(envelope(2));
  tab.subscription.add("news", "chat", "sport");
  await world.pass(0);
  assert.deepEqual(paths(world), ["/channels/chat", "/channels/chat,news,sport"]);
  assert.deepEqual([world.live.length, world.last("websocket").query.cursor], [1, cursor(2)]);
  world.last("websocket").works(cursor(2)).tell(envelope(3, {channel: "sport"}));
  assert.deepEqual([tab.data, tab.states, tab.subscription.channels],
    [[2, 3], ["open websocket"], ["chat", "news", "sport"]]);
});

scenario("a channel is removed, and nothing of the others is lost", async (world) => {
  const tab = connected(world, {}, "/channels/chat,news");
  world.last("websocket").tell(envelope(2));
  tab.subscription.remove("news", "unknown");
  world.last("websocket").tell(envelope(3), envelope(4, {channel: "news"}));
  await world.pass(4999);
  assert.equal(world.connections.length, 1);
  await world.pass(1);
  world.last("websocket").works(cursor(4)).tell(envelope(5));
  assert.deepEqual([paths(world)[1], tab.data, tab.subscription.channels], ["/channels/chat", [2, 3, 5], ["chat"]]);
  assert.deepEqual(tab.states, ["open websocket"]);
});

scenario("what changes nothing connects to nothing", async (world) => {
  const {subscription} = connected(world);
  subscription.add("chat");
  subscription.remove("news");
  assert.equal(world.connections.length, 1);
});

scenario("without channels it is closed, until one is added", async (world) => {
  const tab = connected(world);
  tab.subscription.remove("chat");
  assert.deepEqual([world.live.length, tab.subscription.state, tab.reasons[1]], [0, "closed", "no channels are left"]);
  tab.happens("pageshow");
  assert.equal(world.live.length, 0);
  tab.subscription.add("news");
  assert.deepEqual([tab.subscription.state, world.last("websocket").query.cursor], ["connecting", cursor(1)]);
});

scenario("after close() channels can not bring it back", async (world) => {
  const {subscription} = connected(world);
  subscription.close();
  subscription.add("news");
  assert.equal(world.live.length, 0);
});

// Spread

scenario("a message with spread is called back with at a random moment within it, in order", async (world) => {
  const tab = connected(world);
  const moments = [0.9, 0.1, 0.5];
  world.random = () => moments.shift();
  world.last("websocket").tell(envelope(2, {spread: 1000}), envelope(3, {spread: 1000}), envelope(4));
  assert.deepEqual([tab.data, tab.cursor], [[], cursor(4)]);
  await world.pass(899);
  assert.deepEqual(tab.data, []);
  await world.pass(1);
  assert.deepEqual(tab.data, [2, 3, 4]);
  world.last("websocket").tell(envelope(5, {spread: 1000}));
  await world.pass(500);
  assert.deepEqual(tab.data, [2, 3, 4, 5]);
});

for (const transport of ["websocket", "longpoll"]) {
  scenario(`${transport}: a reset with spread waits likewise, and what follows waits for it`, async (world) => {
    const tab = world.openAlone({transports: [transport], cursor: cursor(1)});
    world.last(transport).works(cursor(1)).reset(cursor(5), {spread: 800}).tell(envelope(6));
    assert.deepEqual([tab.resets.length, tab.data], [0, []]);
    await world.pass(400);
    assert.deepEqual([tab.resets[0].spread, tab.data], [800, [6]]);
  });
}

scenario("close() also ends what waits for its moment", async (world) => {
  const tab = connected(world);
  world.last("websocket").tell(envelope(2, {spread: 1000}));
  tab.subscription.close();
  await world.pass(2000);
  assert.deepEqual(tab.data, []);
});

// Callbacks that change the subscription

for (const shareTabs of [true, false]) {
  for (const when of ["message", "reset", "open", "waiting", "connecting"]) {
    scenario(`close() in a callback (${when}, ${shareTabs ? "shared" : "alone"}) ends it for good`, async (world) => {
      const tab = world.tab(), closeAt = (name) => name === when && tab.subscription.close();
      tab.follow({
        shareTabs,
        transports: ["websocket"],
        onMessage: () => closeAt("message"),
        onReset: () => closeAt("reset"),
        onState: ({state}) => closeAt(state)
      });
      await world.pass(10);
      world.last("websocket").works(cursor(1)).tell(envelope(2)).reset(cursor(3)).end();
      await world.pass(100000);
      assert.deepEqual([tab.subscription.state, world.live, world.connections.length < 3], ["closed", [], true]);
      assert.deepEqual([world.locks.holder(), world.channels.size, world.isQuiet], [undefined, 0, true]);
    });
  }
}

for (const transport of ["websocket", "longpoll"]) {
  scenario(`${transport}: a callback that adds a channel loses nothing that came with its message`, async (world) => {
    const tab = world.tab();
    tab.follow({
      shareTabs: false,
      transports: [transport],
      onMessage: ({data}) => {
        tab.data.push(data);
        if (data === 2) tab.subscription.add("news");
      }
    });
    world.last(transport).works(cursor(1)).tell(envelope(2), envelope(3));
    await world.pass(0);
    assert.deepEqual([tab.data, world.last(transport).query.cursor, world.live.length], [[2], cursor(2), 1]);
    world.last(transport).works(cursor(2)).tell(envelope(3));
    assert.deepEqual(tab.data, [2, 3]);
  });
}

for (const when of ["waiting", "connecting"]) {
  scenario(`close() when a token could not be had (${when}) ends it for good`, async (world) => {
    const tab = world.tab();
    tab.follow({token: throwing("no session"), onState: ({state}) => state === when && tab.subscription.close()});
    await world.pass(100000);
    assert.deepEqual([tab.subscription.state, world.isQuiet], ["closed", true]);
    world.errors.splice(0);
  });
}

// Tokens

const TOKENS = {
  "a string": () => "t&1",
  "a function that returns it": () => () => "t&1",
  "a function that calls back with it": () => (done) => done("t&1"),
  "a function that promises it": () => async () => "t&1",
  "a function whose old-style promise calls back at once": () => () => ({then: (done) => done("t&1")})
};

for (const [what, make] of Object.entries(TOKENS)) {
  scenario(`a token can be ${what}`, async (world) => {
    world.openAlone({token: make()});
    await world.pass(0);
    assert.equal(world.last("websocket").query.token, "t&1");
    assert.equal(world.connections.length, 1);
  });
}

for (const transport of ["eventsource", "longpoll"]) {
  scenario(`${transport}: cookies are sent to another origin where the page says so`, async (world) => {
    for (const withCredentials of [true, false]) {
      world.openAlone({transports: [transport], withCredentials});
      assert.equal(world.last(transport).withCredentials, withCredentials);
    }
  });
}

scenario("a function may find that there is no token", async (world) => {
  world.openAlone({token: (done) => done(null)});
  assert.equal(world.last("websocket").query.token, undefined);
});

for (const transport of ["websocket", "longpoll"]) {
  scenario(`${transport}: a token that is refused (401) is replaced at once, then with backoff`, async (world) => {
    world.random = () => 1;
    let count = 0;
    const tab = world.openAlone({transports: [transport], token: () => `t${++count}`});
    world.last(transport).works(cursor(1));
    const waits = [];
    for (let i = 0; i < 4; i++) {
      world.last(transport).refuse(401, "the token has expired");
      waits.push(await world.untilNext());
    }
    assert.deepEqual(waits, [0, 1000, 2000, 4000]);
    assert.deepEqual([world.last(transport).query.token, world.last(transport).query.cursor], ["t5", cursor(1)]);
    world.last(transport).works(cursor(1));
    assert.deepEqual(tab.reasons.filter(Boolean)[0], "the token has expired");
    await world.pass(1000);
    world.last(transport).refuse(401, "the token has expired");
    await world.pass(1);
    assert.equal(world.last(transport).query.token, "t6");
  });

  scenario(`${transport}: tokens that are taken and refused at once are replaced with backoff`, async (world) => {
    world.random = () => 1;
    world.openAlone({transports: [transport], token: () => "t"});
    const waits = [];
    for (let i = 0; i < 4; i++) {
      world.last(transport).works(cursor(1));
      world.last(transport).refuse(401, "the token has expired");
      waits.push(await world.untilNext());
    }
    assert.deepEqual(waits, [0, 1000, 2000, 4000]);
  });

  scenario(`${transport}: a string that is refused (401) ends the subscription`, async (world) => {
    const tab = world.openAlone({transports: [transport], token: "old"});
    world.last(transport).refuse(401, "the token has expired");
    await world.pass(60000);
    assert.deepEqual([tab.states, tab.reasons, world.live], [["closed"], ["the token has expired"], []]);
  });
}

for (const transport of ["websocket", "eventsource"]) {
  scenario(`${transport}: a token that expires is replaced at once, and nothing is lost`, async (world) => {
    let count = 0;
    const tab = world.openAlone({transports: [transport], token: () => `t${++count}`});
    world.last(transport).works(cursor(1)).tell(envelope(2)).expire(cursor(3));
    await world.pass(0);
    assert.deepEqual([world.last(transport).query.token, world.last(transport).query.cursor], ["t2", cursor(3)]);
    world.last(transport).works(cursor(3)).tell(envelope(4));
    assert.deepEqual([tab.data, tab.states, world.live.length], [[2, 4], [`open ${transport}`], 1]);
  });

  scenario(`${transport}: without a new token the server decides again when its verdict expires`, async (world) => {
    const tab = world.openAlone({transports: [transport], token: "the only one"});
    world.last(transport).works(cursor(1)).tell(envelope(2)).expire(cursor(3));
    await world.pass(1000);
    assert.equal(world.last(transport).query.cursor, cursor(3));
    world.last(transport).works(cursor(3)).tell(envelope(4));
    assert.deepEqual([tab.data, tab.states], [[2, 4], [`open ${transport}`]]);
  });
}

scenario("a token that only WebSocket refuses, again and again, leaves the other transports", async (world) => {
  let count = 0;
  const tab = world.openAlone({token: () => `t${++count}`});
  world.last("websocket").refuse(401, "the token has expired");
  await world.pass(1);
  world.last("websocket").refuse(401, "the token has expired");
  world.last("eventsource").works(cursor(1)).tell(envelope(2));
  assert.deepEqual([tab.data, tab.states, count], [[2], ["open eventsource"], 2]);
});

scenario("a connection that was cut within a second has not shown that its token is good", async (world) => {
  world.random = () => 1;
  world.openAlone({transports: ["websocket"], token: () => "t"});
  world.last("websocket").refuse(401, "the token has expired");
  await world.untilNext();
  world.last("websocket").works(cursor(1)).end();
  await world.pass(10000);
  world.last("websocket").refuse(401, "the token has expired");
  assert.equal(await world.untilNext(), 1000);
});

scenario("an event stream's 401 can not be seen, but the next transport's is", async (world) => {
  let count = 0;
  world.openAlone({transports: ["eventsource", "longpoll"], token: () => `t${++count}`});
  world.last("eventsource").end();
  world.last("longpoll").refuse(401, "the token has expired");
  await world.pass(0);
  assert.deepEqual([world.using, world.last("eventsource").query.token], [["eventsource"], "t2"]);
});

for (const [what, token] of [
  ["throws", throwing("no session")],
  ["promises in vain", () => Promise.reject(new Error("no session"))]
]) {
  scenario(`a function for tokens that ${what} is asked again, with backoff`, async (world) => {
    let count = 0;
    const tab = world.openAlone({token: () => ++count && token()});
    await world.pass(60000);
    assert(count > 5 && count < 20, String(count));
    assert.deepEqual([world.connections.length, tab.states.slice(0, 3)], [0, ["waiting", "connecting", "waiting"]]);
    assert.equal(tab.reasons[0], "no token: no session");
    assert.equal(world.errors.splice(0).length, count);
  });
}

scenario("a token that comes when it is no longer asked for is not used", async (world) => {
  const asked = [];
  const tab = world.openAlone({token: (done) => void asked.push(done)});
  ["pagehide", "pageshow"].forEach((name) => tab.happens(name));
  asked[0]("late");
  asked[1]("new");
  asked[1]("twice");
  assert.deepEqual(world.connections.map(({query}) => query.token), ["new"]);
  tab.subscription.close();
  asked[1]("too late");
  assert.deepEqual(world.live, []);
});

scenario("a promise of a token that fails after close() changes nothing any more", async (world) => {
  const tab = world.openAlone({token: () => Promise.reject(new Error("left"))});
  tab.subscription.close();
  await world.pass(60000);
  assert.deepEqual([tab.states, world.connections, world.errors.splice(0)], [["closed"], [], ["left"]]);
});

scenario("nor does one that fails after another token was asked for, and has come", async (world) => {
  const fails = [], tokens = [() => new Promise((resolve, reject) => fails.push(reject)), () => "new"];
  const tab = world.openAlone({token: () => tokens.shift()()});
  ["pagehide", "pageshow"].forEach((name) => tab.happens(name));
  world.last("websocket").works(cursor(1));
  fails[0](new Error("late"));
  await world.pass(1000);
  assert.deepEqual([world.using, world.errors.splice(0)], [["websocket"], ["late"]]);
  assert.deepEqual(tab.states, ["waiting", "connecting", "open websocket"]);
});

// The page's life

for (const [leaves, comes] of [["pagehide", "pageshow"], ["freeze", "resume"]]) {
  scenario(`“${leaves}” closes the connection, “${comes}” goes on from the cursor`, async (world) => {
    const tab = connected(world);
    tab.happens(leaves);
    assert.deepEqual([world.live, tab.subscription.state], [[], "waiting"]);
    await world.pass(3600000);
    assert.equal(world.connections.length, 1);
    tab.happens(comes);
    assert.equal(tab.subscription.state, "connecting");
    world.last("websocket").works(cursor(1)).tell(envelope(2));
    assert.deepEqual([tab.data, world.live.length], [[2], 1]);
    tab.happens(comes);
    assert.equal(world.live.length, 1);
  });
}

scenario("a page that is shown for the first time, as all are, keeps its connection", async (world) => {
  const tab = connected(world);
  tab.happens("pageshow");
  assert.equal(world.connections.length, 1);
});

scenario("channels that are added while the page is left wait until it is back", async (world) => {
  const tab = connected(world);
  tab.happens("pagehide");
  tab.subscription.add("news");
  assert.equal(world.live.length, 0);
  tab.happens("pageshow");
  assert.deepEqual([world.live.length, paths(world).at(-1)], [1, "/channels/chat,news"]);
});

scenario("“offline” ends nothing by itself: the browser may be wrong", async (world) => {
  const tab = connected(world);
  tab.happens("offline");
  world.last("websocket").tell(envelope(2));
  assert.deepEqual(tab.data, [2]);
});

for (const [what, wrap] of [
  ["a proxy", (subscription) => new Proxy(subscription, {})],
  ["a proxy that wraps what it returns, as Vue's", (subscription) => new Proxy(subscription, {get: reactive})]
]) {
  scenario(`close(), add() and remove() work through ${what}`, async (world) => {
    const tab = connected(world), proxy = wrap(tab.subscription);
    proxy.add("news");
    await world.pass(0);
    assert.deepEqual(paths(world).slice(1), ["/channels/chat,news"]);
    proxy.remove("chat");
    world.last("websocket").works(cursor(1));
    await world.pass(5000);
    assert.deepEqual(paths(world).slice(2), ["/channels/news"]);
    const [heard, hear] = [world.connections.length, (name) => tab.happens(name)];
    proxy.close();
    ["pagehide", "pageshow", "freeze", "resume", "online", "visibilitychange"].forEach(hear);
    await world.pass(60000);
    assert.deepEqual([world.live, world.connections.length, tab.states.at(-1)], [[], heard, "closed"]);
  });
}

/** Of objects a proxy again; functions as they are. */
function reactive(target, name, proxy) {
  const value = Reflect.get(target, name, proxy), type = Object.prototype.toString.call(value);
  return ["[object Object]", "[object Array]"].includes(type) ? new Proxy(value, {get: reactive}) : value;
}

scenario("after close() the page's events are not listened to", async (world) => {
  const tab = connected(world);
  tab.subscription.close();
  ["pagehide", "pageshow", "freeze", "resume", "online", "visibilitychange"].forEach((name) => tab.happens(name));
  assert.deepEqual([world.live, tab.states], [[], ["open websocket", "closed"]]);
});

scenario("there may be no page at all", async (world) => {
  const tab = connected(world, {env: {page: null, document: null}});
  world.last("websocket").tell(envelope(2));
  assert.deepEqual(tab.data, [2]);
  assert.equal(typeof PushCompat.subscribe, "function");
});
