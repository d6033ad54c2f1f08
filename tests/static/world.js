/* A world for the browser client without real time or a network: tabs run in it, and the test plays the server.
 *
 *     const world = new World(), tab = world.open({…options of subscribe});
 *     await world.pass(2500);
 *     world.last("eventsource").works(cursor(1));
 *     assert.deepEqual(tab.data, …)
 *
 * The fakes do what the standards say and the client could stumble over: a closed WebSocket still says so later,
 * `abort()` calls back at once, a timer that is set to more than 2^31 - 1 ms fires at once, a stolen lock rejects, a
 * frozen tab does everything it missed when it thaws.
 */
"use strict";

const assert = require("node:assert/strict");
const {setMaxListeners} = require("node:events");
const test = require("node:test");

const PushCompat = require("../../static/pushcompat.js");

const EPOCH = "aaaaaaaa";

function cursor(number, epoch = EPOCH) {
  return `${epoch}-${String(number).padStart(15, "0")}`;
}

function envelope(number, more) {
  return {id: cursor(number), channel: "chat", data: number, time: 0, ...more};
}

class World {
  constructor() {
    this.now = 0; // ms since it began
    this.clock = 1764000000000; // what the computers' clocks said then
    this.random = () => 0.5;
    this.errors = []; // what went to a console
    this.connections = []; // all that ever were
    this.posts = []; // what tabs posted to each other: "hello" …, by whom
    this.onconnect = () => {}; // a model server's
    this.onrun = () => {}; // called with a tab in which something has happened
    this.storage = storage();
    this.locks = new Locks(this);
    this.channels = new Set();
    this.pages = [];
    this._timers = [];
    this._count = 0;
  }

  /** A tab of https://app.example whose page follows a channel. */
  open(options, url) {
    return this.tab().follow(options, url);
  }

  /** One whose page follows nothing yet. */
  tab() {
    return new Tab(this);
  }

  /** One that shares its connection with no other tab. */
  openAlone(options, url) {
    return this.open({shareTabs: false, ...options}, url);
  }

  /** Lets time pass, and the promises of each moment come to rest before the next. */
  async pass(ms) {
    const end = this.now + ms;
    await rest();
    while (this._timers.length && this._timers[0].time <= end) await this._step();
    this.now = end;
  }

  /** Lets time pass until something is so. */
  async until(isSo) {
    await rest();
    while (!isSo()) await this._step();
  }

  async _step() {
    const timer = this._timers.shift();
    this.now = timer.time;
    timer.action();
    await rest();
  }

  /** Lets time pass until there is another connection. Returns how long that took. */
  async untilNext() {
    const {length} = this.connections, since = this.now;
    await this.until(() => this.connections.length > length);
    return this.now - since;
  }

  later(ms, action) {
    const timer = {time: this.now + Math.max(0, ms || 0), order: this._count++, action};
    let at = this._timers.length;
    while (at > 0 && this._timers[at - 1].time > timer.time) at--;
    this._timers.splice(at, 0, timer);
    return timer;
  }

  cancel(timer) {
    const at = this._timers.indexOf(timer);
    if (at >= 0) this._timers.splice(at, 1);
  }

  connect(tab, transport, url, browser) {
    const connection = new Connection(tab, transport, url, browser);
    this.connections.push(connection);
    this.onconnect(connection);
    return connection;
  }

  last(transport) {
    return this.connections.filter((each) => each.transport === transport).pop();
  }

  /** Whether nothing is going to happen any more. */
  get isQuiet() {
    return !this._timers.length;
  }

  get live() {
    return this.connections.filter((each) => each.isOpen);
  }

  /** Names of the transports that are connected. */
  get using() {
    return this.live.map((each) => each.transport);
  }

  /** What was connected to, and when. */
  get starts() {
    return this.connections.map((each) => `${each.transport} ${each.time}`);
  }
}

function rest() {
  return new Promise(setImmediate);
}

function storage(kept = {}) {
  return {
    kept,
    getItem: (name) => kept[name] ?? null,
    setItem: (name, value) => void (kept[name] = value),
    removeItem: (name) => void delete kept[name]
  };
}

/** The origin's localStorage, as a tab sees it: other tabs hear of its changes. */
function storageOf(tab) {
  const {world} = tab;
  const tell = (key) => world.pages.filter((other) => other !== tab).forEach((other) => {
    const event = Object.assign(new Event("storage"), {key});
    world.later(1, () => other.run(() => other.page.dispatchEvent(event)));
  });
  return {
    getItem: (name) => world.storage.getItem(name),
    setItem: (name, value) => {
      world.storage.setItem(name, value);
      tell(name);
    },
    removeItem: (name) => {
      world.storage.removeItem(name);
      tell(name);
    }
  };
}

function throwing(message) {
  return function () { throw new Error(message); };
}

/* --- A connection, seen from the server -------------------------------------------------------------------------- */

class Connection {
  constructor(tab, transport, url, browser) {
    this.tab = tab;
    this.transport = transport;
    this.url = url;
    this.query = Object.fromEntries(new URL(url).searchParams);
    this.time = tab.world.now;
    this.isOpen = true;
    this._browser = browser; // {hear(message), end(...)}: what it does to the page
  }

  /** It delivers: the first thing that is said; of a poll, its first answer. Returns what goes on: the next poll. */
  works(at = "", more) {
    if (this.transport === "longpoll") return this.answer({cursor: at, messages: []});
    this.say({control: "open", cursor: at, heartbeat: 15, lifetime: null, ...more});
    return this;
  }

  /** Messages, in the transport's way. Returns what goes on. */
  tell(...messages) {
    if (this.transport === "longpoll") return this.answer({cursor: messages.at(-1).id, messages});
    messages.forEach((message) => this.say(message));
    return this;
  }

  reset(at, more) {
    if (this.transport === "longpoll") return this.answer({cursor: at, messages: [], reset: ["chat"], ...more});
    this.say({control: "reset", cursor: at, channels: ["chat"], ...more});
    return this;
  }

  /** Its time is up. */
  rotate(at, retry) {
    if (this.transport === "longpoll") this.answer({cursor: at, messages: [], retry});
    this.say({control: "rotate", cursor: at, retry});
    this.end(1012, "rotated");
  }

  /** The token's time is up. */
  expire(at) {
    this.say({control: "expired", cursor: at});
    this.end(4401, "the token has expired");
  }

  /** On a stream. */
  say(message) {
    if (this.isOpen) this._browser.hear(message);
  }

  ping(at) {
    this.say({control: "ping", cursor: at});
  }

  /** The whole answer to a poll. Returns the next one, if there is one at once. */
  answer(body, status = 200, headers = {}) {
    this.end(status, text(body), headers);
    return this.tab.world.last("longpoll");
  }

  /** The server itself says why, in the transport's way; an event stream's status cannot be seen. */
  refuse(status, detail, headers) {
    if (this.transport === "longpoll") this.answer({type: "about:blank", title: "", status, detail}, status, headers);
    else this.end(status + 4000, detail);
  }

  /** It ends, as the network ends it, or with a WebSocket's code and reason, or a poll's status and text. */
  end(...how) {
    if (!this.isOpen) return;
    this.isOpen = false;
    this._browser.end(...how);
  }
}

function transportsOf(tab) {
  const {world} = tab;

  function WebSocket(url) {
    const connection = world.connect(tab, "websocket", url, {
      hear: (message) => this.onmessage({data: text(message)}),
      end: (code = 1006, reason = "") => this.onclose({code, reason})
    });
    this.close = () => {
      if (connection.isOpen) world.later(1, () => tab.run(() => this.onclose({code: 1006, reason: ""})));
      connection.isOpen = false;
    };
  }

  function EventSource(url, options) {
    const listeners = {}, connection = world.connect(tab, "eventsource", url, {
      hear: (message) => listeners[message.control ? "control" : "message"]({data: text(message)}),
      end: () => {
        this.onerror({});
        assert(this.isClosed, "the browser's own reconnection was left on");
      }
    });
    connection.withCredentials = options.withCredentials === true;
    this.addEventListener = (type, listener) => { listeners[type] = listener; };
    this.close = () => {
      this.isClosed = true;
      connection.isOpen = false;
    };
  }

  function XMLHttpRequest() {
    const done = (status, body = "", headers = {}) => {
      Object.assign(this, {readyState: 4, status, responseText: body});
      this.getResponseHeader = (name) => headers[name] ?? null;
      this.onreadystatechange();
    };
    this.open = (method, url) => Object.assign(this, {url, method, readyState: 1});
    this.send = () => {
      this.connection = world.connect(tab, "longpoll", this.url, {end: (status = 0, ...rest) => done(status, ...rest)});
      this.connection.withCredentials = this.withCredentials === true;
    };
    this.abort = () => {
      if (!this.connection.isOpen) return;
      this.connection.isOpen = false;
      done(0);
    };
  }

  return {WebSocket, EventSource, XMLHttpRequest};
}

function text(message) {
  return typeof message === "string" ? message : JSON.stringify(message);
}

/* --- Tabs --------------------------------------------------------------------------------------------------------- */

class Tab {
  constructor(world) {
    this.world = world;
    this.page = new EventTarget();
    this.document = new EventTarget();
    this.alive = true;
    this.host = this;
    world.pages.push(this);
    setMaxListeners(0, this.page, this.document);
    this.isHeardBy = () => true; // what it posted before it was gone
    this.data = []; // of the messages that its page was called with
    this.resets = [];
    this.states = []; // "open websocket", "waiting" …
    this.reasons = [];
    this._frozen = null; // or what waits for the thaw
    this.env = {
      ...transportsOf(this),
      BroadcastChannel: channelOf(this),
      locks: world.locks.of(this),
      storage: storageOf(this),
      page: this.page,
      document: this.document,
      location: {protocol: "https:", href: "https://app.example/shop/page.html"},
      permissions: null,
      console: {error: (text) => world.errors.push(text)},
      setTimeout: (action, ms) => this._setTimeout(action, ms),
      clearTimeout: (timer) => this._clearTimeout(timer),
      now: () => world.clock + world.now,
      random: () => world.random()
    };
  }

  follow({env, ...options} = {}, url = "/channels/chat") {
    this.subscription = PushCompat.subscribe(url, {
      onMessage: (message) => this.data.push(message.data),
      onReset: (reset) => this.resets.push(reset),
      onState: ({state, transport, reason}) => {
        this.states.push(transport ? `${state} ${transport}` : state);
        this.reasons.push(reason);
      },
      ...options,
      env: env ? {...this.env, ...env} : this.env
    });
    return this;
  }

  /** Another subscription of this page, as a tab of its own that has the same surroundings. */
  beside(options, url) {
    const other = Object.assign(Object.create(this.host), {data: [], resets: [], states: [], reasons: []});
    return other.follow(options, url);
  }

  get cursor() {
    return this.subscription.cursor;
  }

  /** Whatever happens in a tab happens through here. */
  run(action) {
    if (!this.alive) return;
    if (this._frozen) this._frozen.push(action);
    else this._execute(action);
  }

  _execute(action) {
    try {
      action();
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error;
      this.world.errors.push(error.message);
    }
    this.world.onrun(this);
  }

  _setTimeout(action, ms) {
    const timer = this.world.later(ms > 0x7fffffff ? 1 : ms, () => this.run(() => timer.isOff || action()));
    return timer;
  }

  _clearTimeout(timer) {
    timer.isOff = true;
    this.world.cancel(timer);
  }

  /** pagehide, pageshow, freeze, resume, online … */
  happens(name) {
    const target = ["visibilitychange", "freeze", "resume"].includes(name) ? this.document : this.page;
    this.run(() => target.dispatchEvent(new Event(name)));
  }

  /** Runs no more until it thaws, without having been told. */
  freeze() {
    this._frozen = this._frozen || [];
  }

  thaw() {
    const action = this._frozen?.shift();
    if (!action) {
      this._frozen = null;
      return;
    }
    this.world.later(0, () => this.thaw());
    this._execute(action);
  }

  /** Is gone at once. Of what it posted last, some others may not hear. */
  crash(isHeardBy = () => true) {
    this.alive = false;
    this.isHeardBy = isHeardBy;
    this.world.live.filter((each) => each.tab === this).forEach((each) => { each.isOpen = false; });
    this.world.locks.forget(this);
  }
}

function channelOf(tab) {
  const {world} = tab;
  return function BroadcastChannel(name) {
    const port = Object.assign(this, {name, tab, isOpen: true});
    world.channels.add(port);
    this.postMessage = (message) => {
      assert(port.isOpen, "posted to a closed channel");
      world.posts.push({tab, kind: message.kind});
      for (const other of world.channels) {
        if (other === port || other.name !== name) continue;
        const copy = structuredClone(message);
        world.later(1, () => {
          if (tab.alive || tab.isHeardBy(other.tab)) other.tab.run(() => other.isOpen && other.onmessage({data: copy}));
        });
      }
    };
    this.close = () => {
      port.isOpen = false;
      world.channels.delete(port);
    };
  };
}

/** Web Locks, exclusive ones. */
class Locks {
  constructor(world) {
    this._world = world;
    this._held = new Map(); // requests by name
    this._waiting = [];
  }

  of(tab) {
    return {request: (name, options, callback) => this._request(tab, name, options, callback)};
  }

  /** Tabs that wait for one. */
  get waiting() {
    return this._waiting.map(({tab}) => tab);
  }

  holder(name = [...this._held.keys()][0]) {
    return this._held.get(name)?.tab;
  }

  _request(tab, name, {signal, steal}, callback) {
    assert(!(signal && steal), "NotSupportedError");
    return new Promise((resolve, reject) => {
      const request = {tab, name, callback, resolve, reject}, held = this._held.get(name);
      if (steal && held) {
        this._held.delete(name);
        held.tab.run(() => held.reject(aborted("stolen")));
      }
      this._waiting[steal ? "unshift" : "push"](request);
      if (signal) signal.addEventListener("abort", () => this._withdraw(request));
      this._world.later(0, () => this._grant(name));
    });
  }

  _withdraw(request) {
    const at = this._waiting.indexOf(request);
    if (at < 0) return; // granted already
    this._waiting.splice(at, 1);
    request.reject(aborted("withdrawn"));
  }

  _grant(name) {
    const at = this._waiting.findIndex((request) => request.name === name);
    if (at < 0 || this._held.has(name)) return;
    const [request] = this._waiting.splice(at, 1);
    this._held.set(name, request);
    request.tab.run(() => {
      Promise.resolve(request.callback({name})).then((value) => {
        request.resolve(value);
        this._release(request);
      });
    });
  }

  _release(request) {
    if (this._held.get(request.name) !== request) return; // it was stolen
    this._held.delete(request.name);
    this._world.later(2, () => this._grant(request.name));
  }

  forget(tab) {
    this._waiting = this._waiting.filter((request) => request.tab !== tab);
    [...this._held.values()].filter((request) => request.tab === tab).forEach((request) => this._release(request));
  }
}

function aborted(message) {
  return Object.assign(new Error(message), {name: "AbortError"});
}

/* --- A test in a world of its own -------------------------------------------------------------------------------- */

/** Nothing may have gone to the console that the test has not taken out of `world.errors`. */
function scenario(name, act) {
  test(name, async () => {
    const world = new World();
    await act(world);
    assert.deepEqual(world.errors, []);
  });
}

module.exports = {World, PushCompat, assert, cursor, envelope, scenario, storage, test, throwing};
