/* Pages, frames, workers and processes as they are in the field: where the client runs, and what happens to it there. */
"use strict";

const {spawnSync} = require("node:child_process");

const {PushCompat, assert, cursor, envelope, scenario, test, throwing} = require("./world.js");
const {FILE, windowOf} = require("./es5.js");

// Addresses

for (const [base, url, address] of [
  ["https://app.example/shop/page.html", "channels/a", "https://app.example/shop/channels/a"],
  ["https://app.example/app/", "channels/a", "https://app.example/app/channels/a"],
  ["https://app.example", "channels/a", "https://app.example/channels/a"],
  ["https://app.example/page?at=/x/y#/z/", "channels/a", "https://app.example/channels/a"],
  ["blob:https://app.example/0b3e-77", "/channels/a", "https://app.example/channels/a"],
  ["file:///home/me/page.html", "https://push.example/channels/a", "https://push.example/channels/a"],
  ["https://app.example/", new URL("wss://push.example/channels/a"), "https://push.example/channels/a"]
]) {
  scenario(`${url} on a page at ${base} is ${address}`, async (world) => {
    world.openAlone({transports: ["longpoll"], env: {location: {protocol: base.split("//")[0], href: base}}}, url);
    assert.equal(world.last("longpoll").url.split("?")[0], address);
  });
}

scenario("a document's base counts as for fetch, also in a frame with srcdoc", async (world) => {
  const document = Object.assign(new EventTarget(), {baseURI: "https://app.example/app/"});
  world.openAlone({transports: ["longpoll"], env: {document, location: {href: "about:srcdoc"}}}, "channels/a");
  assert.equal(world.last("longpoll").url.split("?")[0], "https://app.example/app/channels/a");
});

for (const [href, url] of [
  ["file:///home/me/page.html", "/channels/a"],
  ["blob:null/0b3e", "/channels/a"],
  [undefined, "/channels/a"],
  ["https://app.example/", "ftp://push.example/channels/a"]
]) {
  scenario(`${url} at ${href} can never work: it is the page's mistake, said at once`, async (world) => {
    const env = {location: href && {href}};
    assert.throws(() => world.openAlone({env}, url), /use https:\/\/HOST\/channels\/NAME, not /);
    assert(world.isQuiet);
  });
}

for (const name of ["a/../../healthz", "b,c", "q?cursor=earliest", "", "ä"]) {
  scenario(`“${name}” is no channel's name, and changes nothing`, async (world) => {
    const tab = world.openAlone();
    assert.throws(() => tab.subscription.add("fine", name), /invalid channel name/);
    assert.deepEqual([tab.subscription.channels, world.connections.length], [["chat"], 1]);
  });
}

// What is called back, and when

for (const [what, options] of [
  ["no transport is usable", {env: {WebSocket: null, EventSource: null, XMLHttpRequest: null}}],
  ["no transport can be made", {env: {WebSocket: throwing("no"), EventSource: throwing("no"), XMLHttpRequest: null}}],
  ["there is no token", {token: throwing("no session")}]
]) {
  scenario(`nothing is called back before subscribe() has returned: ${what}`, async (world) => {
    const tab = world.tab(), seen = [];
    const subscription = PushCompat.subscribe("/channels/chat", {
      shareTabs: false,
      ...options,
      env: {...tab.env, ...options.env},
      onState: ({state}) => seen.push([state, subscription.state])
    });
    assert.deepEqual(seen, []);
    await world.pass(1000);
    assert(seen.length > 0);
    subscription.close();
    world.errors.splice(0);
  });
}

scenario("what was held back comes in order, before what came later", async (world) => {
  const tab = world.openAlone({env: {WebSocket: throwing("no"), EventSource: throwing("no"), XMLHttpRequest: null}});
  tab.subscription.close();
  assert.deepEqual(tab.states, []);
  await world.pass(0);
  assert.deepEqual(tab.states, ["waiting", "closed"]);
});

test("a callback that throws does not end a Node.js process", () => {
  const script = `
    const {subscribe} = require(${JSON.stringify(FILE)});
    function WebSocket() { setTimeout(() => this.onmessage({data: '{"control":"open","cursor":"${cursor(1)}"}'})); }
    const subscription = subscribe("http://127.0.0.1/channels/chat", {env: {WebSocket}, onState: () => {
      setTimeout(() => { console.log("still here"); process.exit(0); });
      throw new Error("the page's mistake");
    }});`;
  const {status, stdout, stderr} = spawnSync(process.execPath, ["-e", script], {encoding: "utf8", timeout: 30000});
  assert.deepEqual([status, stdout], [0, "still here\n"]);
  assert.match(stderr, /the page's mistake/);
});

scenario("why it is closed for good goes to the console of a page that does not listen for it", async (world) => {
  for (const onState of [undefined, () => {}]) {
    world.openAlone({transports: ["websocket"], onState});
    world.last("websocket").refuse(403, "start it with --cors-origin");
  }
  assert.deepEqual(world.errors.splice(0), ["PushCompat: https://app.example/channels/chat: start it with --cors-origin"]);
});

// Reasons

scenario("when no transport works the reason names each of them", async (world) => {
  const tab = world.openAlone();
  world.last("websocket").end(1006);
  world.last("eventsource").end();
  world.last("longpoll").end();
  assert.deepEqual(tab.reasons, ["websocket: the WebSocket ended with code 1006; eventsource: the event stream ended; " +
    "longpoll: the poll was cut off"]);
});

scenario("a page from https: is told that its server needs it, too", async (world) => {
  const tab = world.openAlone({transports: ["longpoll"]}, "http://push.example/channels/chat");
  world.last("longpoll").end();
  assert.deepEqual(tab.reasons, ["a page from https: needs a server with https: (the poll was cut off)"]);
});

for (const [host, name] of [
  ["127.0.0.1:8888", "loopback-network"], ["localhost", "loopback-network"], ["[::1]:8888", "loopback-network"],
  ["10.1.2.3", "local-network"], ["192.168.0.2:80", "local-network"], ["printer", "local-network"],
  ["nas.local", "local-network"], ["push.example", null], ["110.1.2.3", null]
]) {
  scenario(`whether a page may reach the local network is asked for ${host}: ${name}`, async (world) => {
    const asked = [], permissions = {query: async (what) => asked.push(what.name) && {state: "denied"}};
    const tab = world.openAlone({transports: ["longpoll"], env: {permissions}}, `https://${host}/channels/chat`);
    world.last("longpoll").end();
    await world.pass(0);
    assert.deepEqual(asked, name ? [name] : []);
    const reason = name ? "the browser does not let this page reach the local network" : "the poll was cut off";
    assert.deepEqual([tab.states, tab.reasons], [["waiting"], [reason]]);
    await world.untilNext();
    world.last("longpoll").works(cursor(1));
    assert.equal(tab.subscription.state, "open");
  });
}

scenario("while the browser asks its user, an attempt is not given up", async (world) => {
  const permissions = {query: async () => ({state: "prompt"})};
  const tab = world.openAlone({transports: ["longpoll"], env: {permissions}}, "https://127.0.0.1/channels/chat");
  await world.pass(10000);
  assert.match(tab.reasons[0], /asks its user/);
  await world.pass(3600000);
  assert.equal(world.connections.length, 2);
  world.last("longpoll").works(cursor(1));
  assert.equal(tab.subscription.state, "open");
});

scenario("a browser that does not know this permission changes nothing", async (world) => {
  const permissions = {query: async () => throwing("TypeError")()};
  const tab = world.openAlone({transports: ["longpoll"], env: {permissions}}, "https://127.0.0.1/channels/chat");
  world.last("longpoll").end();
  await world.untilNext();
  assert.equal(tab.reasons[0], "the poll was cut off");
});

// What worked

scenario("what worked is remembered for each server, and told", async (world) => {
  const one = world.openAlone({}, "https://one.example/channels/chat");
  world.last("websocket").end();
  world.last("eventsource").works(cursor(1));
  one.subscription.close();
  const other = world.openAlone({}, "https://other.example/channels/chat");
  assert.equal(world.live[0].transport, "websocket");
  other.subscription.close();
  const again = world.openAlone({}, "https://one.example/channels/news");
  world.last("eventsource").works(cursor(1));
  assert.deepEqual([again.states, again.reasons], [["open eventsource"], ["eventsource worked last time"]]);
});

// What browsers do to a page

for (const [transport, readyState] of [["eventsource", 2], ["websocket", 3]]) {
  scenario(`${transport}: a download that ends it without an event is noticed in a second`, async (world) => {
    let socket;
    const tab = world.tab(), Api = tab.env[transport === "websocket" ? "WebSocket" : "EventSource"];
    function Kept(...parameters) {
      Api.apply(this, parameters);
      socket = this;
    }
    tab.follow({shareTabs: false, transports: [transport], env: {[Api.name]: Kept}});
    world.last(transport).works(cursor(1));
    tab.happens("beforeunload");
    await world.pass(1000);
    assert.deepEqual(tab.states, [`open ${transport}`]);
    tab.happens("beforeunload");
    socket.readyState = readyState;
    world.last(transport).isOpen = false;
    await world.pass(1000);
    assert.deepEqual([tab.states[1], tab.reasons[1]], ["waiting", "the browser ended the connection"]);
    await world.pass(500);
    assert.equal(world.live.length, 1);
  });
}

scenario("a page that is prerendered waits until it is shown", async (world) => {
  const tab = world.tab();
  tab.document.prerendering = true;
  tab.follow();
  tab.happens("pageshow");
  await world.pass(10000);
  assert.deepEqual([world.connections, world.posts, world.locks.holder()], [[], [], undefined]);
  tab.document.prerendering = false;
  tab.happens("prerenderingchange");
  await world.pass(10);
  world.last("websocket").works(cursor(1)).tell(envelope(2));
  assert.deepEqual(tab.data, [2]);
});

scenario("an imitation whose close() throws, or is missing, does not hold up the others", async (world) => {
  function EventSource() { this.addEventListener = () => {}; }
  const tab = world.openAlone({transports: ["eventsource", "longpoll"], env: {EventSource}});
  await world.pass(2500);
  world.last("longpoll").works(cursor(1)).tell(envelope(2));
  assert.deepEqual([tab.states, tab.data], [["open longpoll"], [2]]);
});

scenario("a subscription without channels stays closed when its page is left and comes back", async (world) => {
  const tab = world.openAlone();
  tab.subscription.remove("chat");
  ["pagehide", "pageshow"].forEach((name) => tab.happens(name));
  assert.deepEqual(tab.states, ["closed"]);
});

// Tabs

scenario("a tab that is shown wakes the one that leads", async (world) => {
  world.random = () => 1;
  const leader = world.open({transports: ["websocket"]}), other = world.open({transports: ["websocket"]});
  await world.pass(10);
  for (let i = 0; i < 6; i++) {
    world.last("websocket").end();
    await world.untilNext();
  }
  world.last("websocket").end();
  await world.pass(1000);
  assert.equal(leader.subscription.state, "waiting");
  const {length} = world.connections;
  other.happens("visibilitychange");
  await world.pass(10);
  assert.equal(world.connections.length, length + 1);
});

scenario("a tab that begins to lead and can not connect does not go on to say “open”", async (world) => {
  const leader = world.open(), other = world.open();
  await world.pass(10);
  world.last("websocket").works(cursor(1));
  await world.pass(10);
  leader.subscription.close();
  await world.pass(2000);
  assert.equal(other.subscription.state, "open");
  await world.pass(1000);
  assert.equal(other.subscription.state, "connecting");
});

// Loaders

scenario("a script tag on a page with RequireJS defines no module, and is global", async (world) => {
  const defined = [], define = Object.assign((names, make) => defined.push(make()), {amd: {}});
  const tag = (attributes) => ({getAttribute: (name) => attributes[name] ?? null});
  const load = (currentScript) => {
    const tab = world.tab();
    tab.env.document.currentScript = currentScript;
    return windowOf(tab, {define});
  };
  assert.equal(typeof load(tag({})).PushCompat.subscribe, "function");
  assert.deepEqual(defined, []);
  const window = load(tag({"data-requiremodule": "pushcompat"}));
  assert.deepEqual(defined, [window.PushCompat]);
});

scenario("a page of Electron, which has a global `module`, gets the global", async (world) => {
  const module = {exports: {}}, window = windowOf(world.tab(), {module});
  assert.equal(window.PushCompat, module.exports);
});
