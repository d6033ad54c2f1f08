/* What pages are used to from other clients: handlers by type, the last N, AbortSignal, for await, a debug switch. */
"use strict";

const {assert, cursor, envelope, scenario} = require("./world.js");

const POLLS = {transports: ["longpoll"], shareTabs: false};

// Handlers by type

scenario("handlers are called for messages of their type, after onMessage, until they are taken off", async (world) => {
  const tab = world.openAlone(), seen = [], take = ({data}) => seen.push(data);
  const {on} = tab.subscription;
  assert.equal(on("new", take).on("new", ({data}) => seen.push(`again ${data}`)), tab.subscription);
  const {off} = tab.subscription;
  world.last("websocket").works(cursor(1))
    .tell(envelope(2, {type: "new"}), envelope(3, {type: "old"}), envelope(4), envelope(5, {type: "constructor"}));
  off("new", take);
  off("never", take);
  world.last("websocket").tell(envelope(6, {type: "new"}));
  assert.deepEqual([seen, tab.data], [[2, "again 2", "again 6"], [2, 3, 4, 5, 6]]);
});

scenario("a handler that throws is reported, and those after it are called", async (world) => {
  const tab = world.openAlone({onMessage: undefined}), seen = [];
  tab.subscription.on("new", () => { throw new Error("a bug of the page"); }).on("new", ({data}) => seen.push(data));
  world.last("websocket").works(cursor(1)).tell(envelope(2, {type: "new"}));
  await world.pass(0);
  assert.deepEqual([seen, world.errors.splice(0)], [[2], ["a bug of the page"]]);
});

scenario("after close() in a handler no other is called", async (world) => {
  const tab = world.openAlone(), seen = [];
  tab.subscription.on("new", () => tab.subscription.close()).on("new", ({data}) => seen.push(data));
  world.last("websocket").works(cursor(1)).tell(envelope(2, {type: "new"}));
  assert.deepEqual(seen, []);
});

// The last N

scenario("the last N are asked for until a message came, and then what came after it", async (world) => {
  const tab = world.openAlone({last: 20});
  assert.deepEqual([tab.cursor, world.last("websocket").query.cursor], ["earliest", "earliest"]);
  assert.equal(world.last("websocket").query.last, "20");
  world.last("websocket").works("earliest").end();
  await world.untilNext();
  assert.equal(world.last("websocket").query.last, "20");
  world.last("websocket").works("earliest").tell(envelope(5)).end();
  await world.untilNext();
  const {cursor: asked, last} = world.last("websocket").query;
  assert.deepEqual([asked, last], ["earliest", undefined]); // 21 more may have been published
  world.last("websocket").works(cursor(4)).tell(envelope(5), envelope(6)).end();
  await world.untilNext();
  assert.deepEqual([world.live[0].query.cursor, world.live[0].query.last, tab.data], [cursor(6), undefined, [5, 6]]);
});

scenario("whoever has a cursor resumes from it, whatever its number of last messages", async (world) => {
  world.openAlone({last: 20, cursor: cursor(3)});
  const {cursor: asked, last} = world.last("websocket").query;
  assert.deepEqual([asked, last], [cursor(3), undefined]);
});

// AbortSignal

scenario("a signal that aborts closes the subscription", async (world) => {
  const controller = new AbortController(), tab = world.openAlone({signal: controller.signal});
  world.last("websocket").works(cursor(1));
  controller.abort();
  assert.deepEqual([tab.states, world.live], [["open websocket", "closed"], []]);
  tab.happens("pageshow");
  assert.equal(tab.subscription.state, "closed");
});

scenario("with a signal that has aborted nothing is connected, and the page is told after subscribe", async (world) => {
  const tab = world.tab().follow({signal: AbortSignal.abort()});
  assert.deepEqual(tab.states, []);
  await world.pass(0);
  assert.deepEqual([tab.states, world.connections], [["closed"], []]);
});

scenario("a closed subscription leaves no listener on its signal", async (world) => {
  const listeners = new Set(), signal = {
    aborted: false,
    addEventListener: (_, listener) => listeners.add(listener),
    removeEventListener: (_, listener) => listeners.delete(listener)
  };
  const tab = world.openAlone({signal});
  assert.equal(listeners.size, 1);
  tab.subscription.close();
  assert.equal(listeners.size, 0);
});

// for await

scenario("for await has each message in order, also those that came before it asked", async (world) => {
  const tab = world.openAlone({onState: undefined}), seen = [];
  const loop = (async () => {
    for await (const {data} of tab.subscription) {
      seen.push(data);
      if (data === 5) break;
    }
  })();
  world.last("websocket").works(cursor(1)).tell(envelope(2), envelope(3), envelope(4));
  await world.pass(0);
  world.last("websocket").tell(envelope(5), envelope(6));
  await loop;
  assert.deepEqual([seen, tab.subscription.state, world.live], [[2, 3, 4, 5], "closed", []]);
});

scenario("the loop ends when the subscription is closed, after what came until then", async (world) => {
  const controller = new AbortController(), tab = world.openAlone({signal: controller.signal}), seen = [];
  const loop = (async () => { for await (const {data} of tab.subscription) seen.push(data); })();
  world.last("websocket").works(cursor(1)).tell(envelope(2));
  controller.abort();
  await loop;
  for await (const {data} of tab.subscription) seen.push(data);
  assert.deepEqual(seen, [2]);
});

scenario("the loop ends with an error when the server refuses", async (world) => {
  const tab = world.openAlone(POLLS);
  const loop = (async () => { for await (const message of tab.subscription) assert.fail(message); })();
  world.last("longpoll").refuse(403, "not for you");
  await assert.rejects(loop, {message: "PushCompat: https://app.example/channels/chat: not for you"});
});

// Debugging

for (const [how, open] of [
  ["the option", (world, env) => world.openAlone({debug: true, env})],
  ["localStorage", (world, env) => {
    world.storage.setItem("pushcompat.debug", "1");
    return world.openAlone({env});
  }]
]) {
  scenario(`${how} logs connections, states and messages to the console, without tokens`, async (world) => {
    const lines = [], tab = open(world, {console: {log: (...words) => lines.push(words)}});
    world.last("websocket").works(cursor(1)).tell(envelope(2)).end();
    tab.subscription.close();
    const started = lines.map(([name, what]) => `${name} ${what}`);
    assert.deepEqual(started, [
      "PushCompat connects", "PushCompat onState", "PushCompat onMessage", "PushCompat lost", "PushCompat onState",
      "PushCompat onState"
    ]);
  });
}

scenario("nothing is logged otherwise", async (world) => {
  const lines = [], console = {log: (...words) => lines.push(words)};
  world.openAlone({debug: false, env: {console}});
  world.storage.setItem("pushcompat.debug", "1");
  world.openAlone({debug: false, env: {console}});
  assert.deepEqual(lines, []);
});

// Where there is no XMLHttpRequest

/** A tab's polls by fetch. */
function fetchOf(tab) {
  return (url, {signal, credentials}) => new Promise((resolve, reject) => {
    const connection = tab.world.connect(tab, "longpoll", url, {
      end: (status = 0, body = "", headers = {}) => {
        if (!status) reject(new TypeError("fetch failed"));
        resolve({status, headers: {get: (name) => headers[name] ?? null}, text: async () => body});
      }
    });
    connection.credentials = credentials;
    signal.addEventListener("abort", () => {
      connection.isOpen = false;
      reject(new DOMException("aborted", "AbortError"));
    });
  });
}

function pollByFetch(world, options) {
  const tab = world.tab();
  return tab.follow({...POLLS, ...options, env: {XMLHttpRequest: undefined, fetch: fetchOf(tab)}});
}

scenario("polls use fetch, and resume after a cut", async (world) => {
  const tab = pollByFetch(world);
  world.last("longpoll").works(cursor(1));
  await world.pass(0);
  world.last("longpoll").tell(envelope(2));
  await world.pass(0);
  world.last("longpoll").end();
  await world.untilNext();
  assert.equal(world.last("longpoll").query.cursor, cursor(2));
  world.last("longpoll").tell(envelope(3));
  await world.pass(0);
  assert.deepEqual([tab.data, tab.states.at(-1)], [[2, 3], "open longpoll"]);
  assert(tab.reasons.includes("the poll was cut off"), tab.reasons);
});

scenario("polls by fetch honour Retry-After, and end with what the server says", async (world) => {
  const tab = pollByFetch(world);
  world.last("longpoll").refuse(429, "too many", {"Retry-After": "7"});
  await world.pass(0);
  assert((await world.untilNext()) >= 7000);
  world.last("longpoll").refuse(403, "not for you");
  await world.pass(0);
  assert.deepEqual([tab.states.at(-1), tab.reasons.at(-1)], ["closed", "not for you"]);
});

scenario("close() aborts a poll by fetch, and nothing is told afterwards", async (world) => {
  const tab = pollByFetch(world);
  world.last("longpoll").works(cursor(1));
  await world.pass(0);
  tab.subscription.close();
  assert.deepEqual(world.live, []);
  await world.pass(60000);
  assert.deepEqual([tab.states.at(-1), world.isQuiet], ["closed", true]);
});

scenario("polls by fetch send cookies to another origin only if they shall", async (world) => {
  pollByFetch(world);
  assert.equal(world.last("longpoll").credentials, undefined);
  pollByFetch(world, {withCredentials: true});
  assert.equal(world.last("longpoll").credentials, "include");
});
