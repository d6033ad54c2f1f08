/*!
 * pushcompat.js: follow channels of a pushcompat server on every network. MIT license.
 *
 *     var subscription = PushCompat.subscribe("/channels/chat", {
 *       onMessage: function (message) { … message.data … },
 *       onReset: function () { … messages were lost: refetch … }
 *     });
 *
 * The parts, each on top of the one before it:
 *
 *     transports          WebSocket, EventSource, long-poll: objects of one interface, one per connection
 *     ConnectionManager   keeps one connection: races transports, watchdog, reconnect, upgrade
 *     Leases              Web Locks for pages that have none
 *     Shared              one ConnectionManager for all tabs: the tab that holds a lock runs it and posts its events
 *     Line                what subscriptions of one page share: one source of events, the union of their channels, a token
 *     Subscription        the page's object: callbacks, channels, cursor
 *
 * They all rest on the cursor. Every connection begins at it, every message moves it, and a message that is not after
 * it is dropped. So connections may overlap, tabs may take over from each other, and nothing is lost or repeated.
 *
 * The language is ES5. Newer APIs (Web Locks, fetch, asynchronous iteration, and what they need) are feature-detected.
 */
(function (root, factory) {
  "use strict";
  var api = factory(root), script = root.document && root.document.currentScript;
  var isModule = typeof module === "object" && module.exports;
  if (isModule) module.exports = api;
  if (isModule && root.module !== module) return;
  // A script tag, also where `module` is global (Electron), or beside an AMD loader that has not asked for this file.
  root.PushCompat = api;
  root.UpdateCheckSocket = api.UpdateCheckSocket;
  if (typeof define !== "function" || !define.amd || script && !script.getAttribute("data-requiremodule")) return;
  define([], function () { return api; });
}(typeof self !== "undefined" ? self : typeof global !== "undefined" ? global : this, function (root) {
  "use strict";

  var DEFAULTS = {
    transports: ["websocket", "eventsource", "longpoll"], // the best first
    shareTabs: true,
    stagger: 2500, // ms before the next transport starts in parallel with one that has delivered nothing
    openTimeout: 10000, // ms after which a connection that delivered nothing is closed
    retryMin: 500, // ms: full jitter between 0 and this, which doubles with each failure …
    retryMax: 30000, // … up to this
    rememberFor: 30 * 60000, // ms: after that the device may be on another network, which does not block WebSocket
    upgradeAfter: [60000, 5 * 60000, 30 * 60000], // ms on a fallback before better transports are tried again
    failures: 3 // short-lived connections before another transport is tried first
  };
  var MAX_DELAY_MS = 0x7fffffff; // browsers fire a timer that is set to more at once
  var MIN_LIFETIME_MS = 1000; // a connection that lived less counts as a failure, and so does a poll
  var MIN_ROTATE_MS = 100;
  var CHECK_AFTER_MS = 1000; // from `beforeunload`, if the page is still there
  var RETURN_AFTER_MS = 5000; // before a transport that worked on this page is tried again
  var SHRINK_AFTER_MS = 5000; // before a connection with channels that nobody follows is replaced by a smaller one
  var LEASE_SETTLE_MS = 50; // until a lease that was written is read again
  var MOST_CHANNELS = 64; // of one request
  var POLL_WAIT_S = 25; // fits every 30 s cap
  var LIFETIME_SLACK_S = 5; // how late the server may end a connection
  var HEARTBEAT_S = 15; // if the server has named none
  var STORAGE_KEY = "pushcompat";
  var EARLIEST = "earliest"; // the cursor that asks for all retained messages
  var INVALID = "not a pushcompat server's response"; // but from a captive portal, for example

  /* --- Small things ------------------------------------------------------------------------------------------- */

  function nothing() {}

  /** A number that the server named, unless it is of no use. */
  function number(value, min, otherwise) {
    return typeof value === "number" && value >= min ? value : otherwise;
  }

  function keysOf(object) {
    var keys = [];
    for (var key in object) {
      if ({}.hasOwnProperty.call(object, key)) keys.push(key);
    }
    return keys;
  }

  function fill(target, source) {
    keysOf(source).forEach(function (name) {
      if (target[name] === undefined) target[name] = source[name];
    });
    return target;
  }

  /** The browser APIs that the client uses; `options.env` replaces any of them. */
  function environment(given) {
    var env = fill({}, given);
    ["WebSocket", "EventSource", "XMLHttpRequest", "fetch", "BroadcastChannel", "location", "document", "console"].forEach(
      function (name) { if (env[name] === undefined) env[name] = root[name]; }
    );
    if (env.XMLHttpRequest === undefined && env.fetch) env.XMLHttpRequest = requestsBy(env.fetch);
    try {
      if (env.storage === undefined) env.storage = root.localStorage;
    } catch (error) {
      // access to localStorage is denied (sandboxed page)
    }
    fill(env, {
      page: root,
      locks: root.navigator && root.navigator.locks,
      permissions: root.navigator && root.navigator.permissions,
      setTimeout: function (action, ms) { return root.setTimeout(action, ms); },
      clearTimeout: function (id) { root.clearTimeout(id); },
      now: Date.now,
      random: Math.random
    });
    if (!env.locks && canLease(env)) env.locks = new Leases(env);
    return env;
  }

  /** What the page's localStorage has under this name. */
  function stored(env, name) {
    try {
      return env.storage.getItem(name);
    } catch (error) {
      return null; // denied, or missing
    }
  }

  /** Logs to the console, if the page or its user wants that. */
  function trace(settings) {
    var log = settings.debug && settings.env.console;
    if (log) log.log.apply(log, ["PushCompat"].concat([].slice.call(arguments, 1)));
  }

  /** Timers with names: to set one again replaces it. Actions are methods of the owner. */
  function Timers(env, owner) {
    this._env = env;
    this._owner = owner;
    this._ids = {};
  }

  Timers.prototype = {
    set: function (name, ms, action) {
      var self = this;
      this.clear(name);
      this._ids[name] = this._env.setTimeout(function () {
        delete self._ids[name];
        action.call(self._owner);
      }, Math.min(ms, MAX_DELAY_MS));
    },

    has: function (name) {
      return this._ids[name] !== undefined;
    },

    clear: function (name) {
      if (this.has(name)) this._env.clearTimeout(this._ids[name]);
      delete this._ids[name];
    },

    clearAll: function () {
      for (var name in this._ids) this.clear(name);
    }
  };

  /** Full jitter: clients that were disconnected at the same moment do not reconnect at the same moment. */
  function backoff(settings, failures) {
    return jitter(settings.env, Math.min(settings.retryMax, settings.retryMin * Math.pow(2, failures)));
  }

  function jitter(env, ms) {
    return env.random() * Math.min(ms, MAX_DELAY_MS);
  }

  /* --- Cursors: <epoch>-<sequence>, of fixed width, comparable as text within an epoch -------------------------- */

  function sameEpoch(a, b) {
    return a.slice(0, 8) === b.slice(0, 8);
  }

  /** Whether a message with this id comes after the cursor. */
  function isNewer(id, cursor) {
    return !sameEpoch(id, cursor) || id > cursor;
  }

  /** The cursor after a control message. One of another epoch is ignored: a reset follows. */
  function advance(cursor, named) {
    return !cursor || (sameEpoch(named, cursor) && named > cursor) ? named : cursor;
  }

  /** Whether a control message names a position; `earliest`, or nothing, means none yet. */
  function isPosition(named) {
    return !!named && named !== EARLIEST;
  }

  /** Whether a tab or subscription at `cursor` would miss something of a connection that is at `position`. */
  function isBehind(cursor, position) {
    return !!cursor && !!position && isNewer(position, cursor);
  }

  /* --- Channels -------------------------------------------------------------------------------------------------- */

  function covers(channels, wanted) {
    return wanted.every(function (name) { return channels.indexOf(name) >= 0; });
  }

  function union(lists) {
    return [].concat.apply([], lists).filter(function (name, i, names) { return names.indexOf(name) === i; });
  }

  /* --- Transports -----------------------------------------------------------------------------------------------
   *
   *     name                 as in ?transport=
   *     needs, Api           the name of the browser's class, and that class if this browser has it
   *     open(address)        `address()` is the URL to connect to, with the current cursor
   *     close()              closes it; no callbacks afterwards
   *     isDead()             whether the browser has ended it, perhaps without an event
   *     onmessage(message)   an envelope or a control message; the first is always `open`
   *     onclose(why, refusal, waitS)   failed or ended; the callee closes it. `refusal` is "token" or "final" if the
   *                          server refuses this request whenever it comes; `waitS` is a Retry-After
   *
   * A transport works once a message came through it. A successful open event proves nothing: some proxies accept
   * WebSockets and deliver nothing, some virus scanners hold a stream back until it ends.
   */

  function parse(text) {
    try {
      return JSON.parse(text);
    } catch (error) {
      return null;
    }
  }

  /** Of 4xx these pass: the request was slow or early, one of too many, or is for another transport. */
  var FINAL = /^4(?!08|2[569])\d\d$/;

  function refusalOf(status) {
    return status === 401 ? "token" : FINAL.test(status) ? "final" : "";
  }

  function isCursor(text) {
    return typeof text === "string" && /^[!-~]+$/.test(text);
  }

  /** Whether this is an envelope or a control message. Controls that are not known need no cursor: they are ignored. */
  function isMessage(message) {
    var control = message && message.control;
    if (!control) return !!message && isCursor(message.id);
    return isCursor(control) && (!CONTROLS[control] || isCursor(message.cursor));
  }

  function receive(transport, text) {
    var message = parse(text);
    if (isMessage(message)) transport.onmessage(message);
    else transport.onclose(INVALID);
  }

  function closeSocket() {
    if (this._socket) this._socket.close();
  }

  function isSocketDead() {
    return this._socket.readyState === this.dead;
  }

  var TRANSPORTS = {};

  TRANSPORTS.websocket = {
    needs: "WebSocket",
    close: closeSocket,
    dead: 3,
    isDead: isSocketDead,

    open: function (address) {
      var self = this, socket = this._socket = new this.Api(address().replace(/^http/, "ws"));
      socket.onmessage = function (event) { receive(self, event.data); };
      socket.onclose = function (event) {
        var code = event.code || 1006;
        self.onclose(event.reason || "the WebSocket ended with code " + code, refusalOf(code - 4000));
      };
      // Chromium fires no close event if the page's policy forbids the address; `ws` throws if nobody listens.
      socket.onerror = function () {
        if (socket.readyState === 3) self.onclose("the WebSocket failed");
      };
    }
  };

  TRANSPORTS.eventsource = {
    needs: "EventSource",
    close: closeSocket,
    dead: 2,
    isDead: isSocketDead,

    open: function (address) {
      var self = this, source = this._socket = new this.Api(address(), this._settings); // its withCredentials
      function listener(event) { receive(self, event.data); }
      source.addEventListener("message", listener, false);
      source.addEventListener("control", listener, false);
      // The browser's own reconnection is not used: it ends for good at a gateway's 502.
      source.onerror = function () { self.onclose("the event stream ended"); };
    }
  };

  /** Repeated polls, presented as a stream. The first one is answered at once, which shows that the transport works. */
  TRANSPORTS.longpoll = {
    needs: "XMLHttpRequest",

    open: function (address) {
      this._address = address;
      this._poll(0);
    },

    close: function () {
      var request = this._request;
      this._request = null;
      if (request) request.abort();
    },

    isDead: nothing, // an ended poll has told so

    _poll: function (waitS) {
      var self = this, request = this._request = new this.Api();
      this._polled = this._address();
      this._held = waitS && this._env.now();
      request.open("GET", this._polled + "&wait=" + waitS, true);
      request.withCredentials = this._settings.withCredentials;
      request.onreadystatechange = function () {
        if (request.readyState === 4 && request === self._request) self._answered(request);
      };
      request.send(null);
    },

    _answered: function (request) {
      var status = request.status, answer = parse(request.responseText) || {}, isOurs = answer.status === status, why;
      if (status === 200) {
        this._tell(answer, request);
        return;
      }
      why = !status ? "the poll was cut off" : isOurs ? answer.detail : "a gateway answered with " + status;
      this.onclose(why, isOurs && refusalOf(status), request.getResponseHeader("Retry-After"));
    },

    _tell: function (answer, request) {
      var cursor = answer.cursor, messages = answer.messages, i;
      if (!isCursor(cursor) || !Array.isArray(messages) || !messages.every(isMessage)) {
        this.onclose(INVALID);
        return;
      }
      this.onmessage({control: "open", cursor: "", heartbeat: POLL_WAIT_S, lifetime: POLL_WAIT_S + LIFETIME_SLACK_S});
      if (answer.reset) {
        this.onmessage({control: "reset", cursor: cursor, channels: answer.reset, spread: answer.spread});
      }
      for (i = 0; i < messages.length; i++) this.onmessage(messages[i]);
      this.onmessage({control: answer.retry ? "rotate" : "ping", cursor: cursor, retry: answer.retry});
      if (this._request !== request) return; // a callback closed it
      var isQuick = this._env.now() - this._held < MIN_LIFETIME_MS;
      this._resets = isQuick && answer.reset ? (this._resets || 0) + 1 : 0;
      // A cache answers, a proxy that drops parameters, or two servers with different logs: it would be polled
      // without a pause.
      var isNothing = this._polled === this._address() || (answer.reset ? this._resets > 1 : !messages.length);
      if (isNothing && isQuick) this.onclose("polls are not held", "", 1);
      else this._poll(POLL_WAIT_S);
    }
  };

  /** Where there is no XMLHttpRequest (service workers, Node.js): as much of it as a long-poll needs. */
  function requestsBy(ask) {
    function Request() {
      this._abortion = new root.AbortController();
    }

    Request.prototype = {
      getResponseHeader: nothing,

      open: function (method, url) {
        this._url = url;
      },

      send: function () {
        var self = this, options = {signal: this._abortion.signal};
        if (this.withCredentials) options.credentials = "include";
        function done(status, text) {
          self.readyState = 4;
          self.status = status;
          self.responseText = text;
          self.onreadystatechange();
        }
        ask(this._url, options).then(function (response) {
          self.getResponseHeader = function (name) { return response.headers.get(name); };
          return response.text().then(function (text) { return [response.status, text]; });
        }).then(function (answer) { done(answer[0], answer[1]); }, function () { done(0, ""); });
      },

      abort: function () {
        this._abortion.abort();
      }
    };
    return Request;
  }

  function makeTransport(name, env) {
    return fill({name: name, _env: env, Api: env[TRANSPORTS[name].needs]}, TRANSPORTS[name]);
  }

  /* --- ConnectionManager: keeps one connection -------------------------------------------------------------------
   *
   * A round tries transports, the best first. The next one starts in parallel if that has delivered nothing for a
   * while, or at once if it fails. The first to deliver wins and becomes the current one; the one that was current
   * until then, and all others in the round, are closed. A round may run beside a current connection: to find a better
   * transport, or to replace a connection that may have died with a change of network.
   *
   * The transport that worked last is tried first, unless it has used up its budget of short-lived connections.
   * Failures during a total outage do not demote a transport. A transport that the server refuses is not tried again;
   * if none is left, the subscription ends.
   *
   * A cursor of `earliest` is asked for again on each connection until the server names a position: only it knows up to
   * where the messages that were evicted earlier are not missed. What arrives again is dropped by its id.
   *
   * A connection has the channels with which it was opened. Which of them are for whom is decided by who hears it.
   *
   * `onevent` receives plain objects that can be posted to other tabs. Each has the `channels` of its connection:
   *
   *     {kind: "message", message: envelope, before: the cursor until then, isEarliest}
   *     {kind: "cursor",  cursor, before}      no messages of these channels in between
   *     {kind: "reset",   message: control, origin: where that connection was}
   *     {kind: "state",   state, transport, reason, heartbeat}
   *     {kind: "refused", reason, refusal}     it has stopped
   */

  function ConnectionManager(settings, base, query, channels, cursor, isEarliest) {
    var env = settings.env;
    this.cursor = cursor;
    this.onevent = nothing;
    this.channels = channels; // for connections to come
    this.status = {
      kind: "state", state: "connecting", transport: null, reason: null, heartbeat: HEARTBEAT_S, channels: channels
    };
    this._settings = settings;
    this._env = env;
    this._base = base;
    this._query = query;
    this.client = env.random().toString(36).slice(2);
    this._timers = new Timers(env, this);
    this._names = settings.transports.filter(function (name) { return makeTransport(name, env).Api; });
    this._refused = {kind: "refused", reason: "no transport is usable here", refusal: "final", channels: channels};
    this._round = newRound([]);
    this._current = null;
    this._confirmed = false; // whether the server, on this connection, has named the epoch of the cursor
    this._isEarliest = isEarliest; // whether `earliest` is asked for, whatever the cursor
    this._failures = 0; // rounds that failed, and short-lived connections, in a row
    this._retryAfter = 0; // ms that the server asked to wait
    this._strikes = {}; // by transport
    this._worked = {}; // on this page
    this._opened = 0; // connections
    this._upgrades = 0; // attempts to get back from the fallback
    this._storageKey = STORAGE_KEY + ".transport " + originOf(base);
    this._last = this._remembered();
    if (this._names.indexOf(this._last) > 0) this.status.reason = this._last + " worked last time";
    this._isAsked = false; // whether the browser asks its user about the local network
  }

  /** `names` of the transports; those that are `waiting` and have `failed`, and the `reasons`; `racing` transports. */
  function newRound(names) {
    return {names: names, waiting: names.slice(), racing: [], failed: [], reasons: []};
  }

  function withName(name, why) {
    return why.slice(0, name.length) === name ? why : name + ": " + why;
  }

  ConnectionManager.prototype = {
    start: function () {
      this._stopped = false;
      this._connect();
    },

    stop: function () {
      this._stopped = true;
      this._endRound();
      this._leave();
      this._timers.clearAll();
    },

    /**
     * Reconnects if these channels are not all received, or not from the cursor on. The old connection closes first. The
     * server knows which of two epochs is current.
     */
    follow: function (channels, cursor) {
      var all = this._current ? [this._current] : this._round.racing;
      var isCovered = all.every(function (transport) { return covers(transport.channels, channels); });
      var goesBack = isBehind(cursor, this.cursor) && (this._confirmed || sameEpoch(cursor, this.cursor));
      this.channels = channels;
      if (goesBack) this.cursor = cursor;
      if (all.length && (goesBack || !isCovered)) this._restart();
      else this._planShrink();
    },

    _planShrink: function () {
      if (!this._isTooLarge() || this._timers.has("shrink")) return;
      this._timers.set("shrink", SHRINK_AFTER_MS, function () {
        if (this._isTooLarge()) this._restart();
      });
    },

    _isTooLarge: function () {
      return !!this._current && this._current.channels.length > this.channels.length;
    },

    _restart: function () {
      this._leave();
      this._raceAll();
    },

    /** The connection may have ended unnoticed, or a new one may have become possible. */
    wake: function (networkChanged) {
      if (networkChanged) { // discard what was learned about the previous network
        this._last = null;
        this._strikes = {};
        this._upgrades = 0;
        this._timers.clear("upgrade");
      }
      if (!this._current) {
        if (networkChanged || this._timers.has("retry")) this._connect();
      } else if (networkChanged || this._env.now() - this._heardAt > this._patience()) {
        this._raceAll();
      }
    },

    /** Firefox ends a page's connections, event streams without an event, when a link turns out to be a download. */
    check: function () {
      this._timers.set("check", CHECK_AFTER_MS, function () {
        if (this._current && this._current.isDead()) this._lost(this._current, "the browser ended the connection");
      });
    },

    _connect: function () {
      this._setStatus("connecting", null);
      this._raceAll();
    },

    _setStatus: function (state, transport) {
      var before = this.status, channels = (this._current || this).channels;
      var isOther = before.state !== state || before.transport !== transport;
      if (!isOther && (state !== "open" || before.channels === channels)) return;
      this.status = fill({state: state, transport: transport, channels: channels}, before);
      this.onevent(this.status);
    },

    // A round

    _order: function () {
      var self = this, names = this._names;
      if (names.every(this._isDemoted, this)) this._strikes = {};
      function rank(name) { return self._isDemoted(name) ? 2 : name === self._last ? 0 : 1; }
      return names.slice().sort(function (a, b) { return rank(a) - rank(b) || names.indexOf(a) - names.indexOf(b); });
    },

    _strike: function (name) {
      this._strikes[name] = (this._strikes[name] || 0) + 1;
    },

    _isDemoted: function (name) {
      return this._strikes[name] >= this._settings.failures;
    },

    _raceAll: function () {
      this._race(this._order());
    },

    _race: function (names) {
      if (this._stopped) return; // by the page, in a callback
      this._endRound();
      this._timers.clear("retry");
      if (!names.length) {
        if (!this._current) this.onevent(this._refused);
        return;
      }
      this._round = newRound(names);
      this._next();
    },

    _endRound: function () {
      this._timers.clear("stagger");
      while (this._round.racing.length) this._discard(this._round.racing.pop());
    },

    _discard: function (transport) {
      this._timers.clear(transport.limit);
      transport.onmessage = transport.onclose = nothing;
      try {
        transport.close();
      } catch (error) {
        // an incomplete imitation of the API (HtmlUnit); the connection is not listened to any more
      }
    },

    _next: function () {
      var round = this._round, name = round.waiting.shift(), transport = makeTransport(name, this._env);
      this._timers.clear("stagger");
      trace(this._settings, "connects", name, this.channels, this.cursor);
      if (round.waiting.length) this._timers.set("stagger", this._settings.stagger, this._next);
      round.racing.push(transport);
      transport._settings = this._settings;
      transport.onmessage = this._receive.bind(this, transport);
      transport.onclose = this._lost.bind(this, transport);
      transport.limit = "open " + ++this._opened; // not its name: the current one may have that, too
      transport.channels = this.channels;
      transport.cursor = this.cursor; // where this connection is, whatever another one brings meanwhile
      this._timers.set(transport.limit, this._isAsked ? MAX_DELAY_MS : this._settings.openTimeout, function () {
        this._lost(transport, name + " delivered nothing");
      });
      try {
        transport.open(this._address.bind(this, transport));
      } catch (error) {
        this._lost(transport, name + ": " + error.message);
      }
    },

    _address: function (transport) {
      var address = this._base + transport.channels.join(",") + this._query;
      address += "transport=" + transport.name + "&format=json&client=" + this.client;
      var cursor = this._isEarliest ? EARLIEST : this.cursor, last = this._settings.last;
      if (cursor === EARLIEST && last && !this.cursor) address += "&last=" + last; // after a message more may have come
      return cursor ? address + "&cursor=" + encodeURIComponent(cursor) : address;
    },

    _win: function (transport, open) {
      var racing = this._round.racing;
      // Those that started earlier had more time and delivered nothing.
      var silent = racing.splice(0, racing.indexOf(transport) + 1).slice(0, -1);
      silent.forEach(function (loser) {
        this.status.reason = loser.name + " delivered nothing";
        this._round.failed.push(loser.name);
        this._discard(loser);
      }, this);
      this._round.failed.forEach(this._strike, this);
      this._timers.clear(transport.limit);
      this._endRound();
      if (this._current && this._current.name !== transport.name) this.status.reason = transport.name + " works again";
      this._leave();
      this._adopt(transport, open);
      this._setStatus("open", transport.name);
    },

    _adopt: function (transport, open) {
      this._timers.clear("retry");
      this._current = transport;
      this._lifetime = number(open.lifetime, 0, Infinity) + LIFETIME_SLACK_S;
      this._lasted = this._isAsked = false;
      this._retryAfter = 0;
      this._timers.set("lasted", MIN_LIFETIME_MS, function () { this._lasted = true; });
      this._worked[transport.name] = true;
      this.status.heartbeat = number(open.heartbeat, 1, HEARTBEAT_S);
      this._remember(transport.name);
      this._planUpgrade();
      this._planShrink();
    },

    /** Drops the current connection, if there is one. */
    _leave: function () {
      var current = this._current;
      if (current && this._lasted) this._failures = 0;
      if (current) this._discard(current);
      this._current = null;
      this._timers.clear("watchdog");
      this._confirmed = false;
    },

    /** An existing upgrade timer is kept if a connection replaces another. */
    _planUpgrade: function () {
      var waits = this._settings.upgradeAfter, better = this._better();
      // A transport that had worked on this page was probably down for a moment: it is tried again soon.
      var soon = better.some(function (name) { return this._worked[name] && !this._isDemoted(name); }, this);
      var wait = waits[Math.min(this._upgrades, waits.length - 1)], plan = soon ? "return" : "upgrade";
      if (!better.length) {
        this._timers.clear("upgrade");
        this._timers.clear("return");
      }
      if (!better.length || !waits.length || this._timers.has(plan)) return;
      this._timers.set(plan, soon ? Math.min(RETURN_AFTER_MS, wait) : wait, function () {
        if (soon) this._worked = {};
        else this._upgrades++;
        if (this._current) this._race(this._better());
      });
    },

    _better: function () {
      return this._names.slice(0, this._names.indexOf(this._current.name));
    },

    // A connection

    _receive: function (transport, message) {
      var named = message.control ? message.cursor : message.id;
      if (transport !== this._current && message.control === "open") this._win(transport, message);
      if (transport !== this._current) return; // before its `open`; or a callback has closed it
      this._heard();
      if (this._isEarliest && this.cursor && isPosition(named) && !sameEpoch(named, this.cursor)) {
        this._isEarliest = false; // messages of the old epoch may be lost: the server will send a reset
        this._restart();
        return;
      }
      if (!message.control) this._take(message);
      else if (CONTROLS[message.control]) CONTROLS[message.control].call(this, message);
      if (isPosition(named)) transport.cursor = advance(transport.cursor, named);
    },

    _take: function (message) {
      var before = this.cursor;
      if (this._hasPosition) this._isEarliest = false;
      if (!isNewer(message.id, before)) return;
      this.cursor = message.id;
      this._emit({kind: "message", message: message, before: before, isEarliest: this._isEarliest});
    },

    /** Emitted even if unchanged, as a heartbeat for other tabs. */
    _moveTo: function (named) {
      var before = this.cursor;
      if (!isPosition(named)) return;
      this._isEarliest = false;
      this.cursor = advance(before, named);
      if (!sameEpoch(named, this.cursor)) return;
      this._confirmed = true;
      this._emit({kind: "cursor", cursor: this.cursor, before: before});
    },

    _emit: function (event) {
      event.channels = this._current.channels;
      this.onevent(event);
    },

    _patience: function () {
      return 1000 * Math.min(2 * this.status.heartbeat, this._lifetime);
    },

    _heard: function () {
      var current = this._current;
      this._heardAt = this._env.now();
      if (this._lasted) {
        this._strikes[current.name] = 0;
        if (current.name === this._names[0]) this._upgrades = 0;
      }
      this._timers.set("watchdog", this._patience(), function () {
        this._strike(current.name);
        this._lost(current, current.name + " timed out");
      });
    },

    /** A connection has ended, or is closed as useless. */
    _lost: function (transport, why, refusal, waitS) {
      var round = this._round, at = round.racing.indexOf(transport), name = transport.name;
      trace(this._settings, "lost", name, why);
      this._discard(transport);
      this._retryAfter = Math.max(this._retryAfter, 1000 * waitS || Date.parse(waitS) - this._env.now() || 0);
      if (refusal) {
        this._refused = {kind: "refused", reason: why, refusal: refusal, channels: transport.channels};
        if (refusal === "token" && this.canRenew) {
          this.onevent(this._refused);
          return;
        }
        // A page cannot see the status of an event stream. A refused poll speaks for it: the request is the same.
        this._names = this._names.filter(function (other) {
          return other !== name && (name !== "longpoll" || other !== "eventsource");
        });
      }
      this.status.reason = why;
      if (at < 0) {
        this._ended(name);
      } else {
        round.racing.splice(at, 1);
        round.failed.push(name);
        round.reasons.push(withName(name, why));
        if (round.waiting.length) this._next();
        else if (!round.racing.length) this._roundFailed();
      }
    },

    _ended: function (name) {
      this._leave();
      if (!this._lasted) this._strike(name);
      // A round of better transports only may take long to fail. In a round of all transports one will work.
      if (this._round.racing.length && this._round.names.length >= this._names.length) this._setStatus("connecting", null);
      else this._comeBack();
    },

    _roundFailed: function () {
      if (this._current) this._planUpgrade();
      else if (!this._timers.has("retry")) this._explain();
    },

    /** Says why no transport works. */
    _explain: function () {
      var page = this._env.location, reasons = this._round.reasons;
      if (reasons.length > 1) this.status.reason = reasons.join("; ");
      if (page && page.protocol === "https:" && /^http:/.test(this._base)) {
        this.status.reason = "a page from https: needs a server with https: (" + this.status.reason + ")";
      }
      if (page && this._env.permissions && isLocal(this._base) && !isLocal(page.href)) this._askPermission();
      else this._comeBack();
    },

    /** Local Network Access: Chromium refuses a public page's connections to this network, or asks its user first. */
    _askPermission: function () {
      var self = this, round = this._round;
      function told(permission) {
        if (self._stopped || self._round !== round) return;
        self._isAsked = permission.state === "prompt";
        if (self._isAsked) self.status.reason = "the browser asks its user whether this page may reach the local network";
        if (permission.state === "denied") self.status.reason = "the browser does not let this page reach the local network";
        self._comeBack();
      }
      var name = isLoopback(this._base) ? "loopback-network" : "local-network";
      this._env.permissions.query({name: name}).then(told, told); // an error, which has no state, if it is not known
    },

    _comeBack: function () {
      var ms = this._retryAfter + backoff(this._settings, this._failures++);
      this._retryAfter = 0;
      if (this._names.length) this._wait(ms);
      else this._race([]);
    },

    _wait: function (ms) {
      this._timers.set("retry", ms, this._connect);
      this._setStatus("waiting", null);
    },

    // The winner is remembered for a limited time: networks change

    _remember: function (name) {
      this._last = name;
      if (name === this._remembered()) return; // do not refresh the timestamp, so that it expires
      try {
        this._env.storage.setItem(this._storageKey, name + " " + this._env.now());
      } catch (error) {
        // full, denied or missing: the next page takes some seconds longer
      }
    },

    _remembered: function () {
      var parts = (stored(this._env, this._storageKey) || "").split(" "), age = this._env.now() - parts[1];
      return age >= 0 && age < this._settings.rememberFor ? parts[0] : null;
    }
  };

  var CONTROLS = fill(Object.create(null), { // the server may name anything, `constructor` too
    open: function (message) {
      this._hasPosition = isPosition(message.cursor);
      if (!this._isEarliest) this._moveTo(message.cursor);
    },

    ping: function (message) { this._moveTo(message.cursor); },

    reset: function (message) {
      var current = this._current, origin = current.cursor;
      this.cursor = current.cursor = message.cursor;
      this._isEarliest = false;
      this._confirmed = true;
      this._emit({kind: "reset", message: message, origin: origin});
    },

    /** The token, or the application's verdict, is no longer valid. Without a new one the server decides again. */
    expired: function (message) {
      var refused = {kind: "refused", reason: message.control, refusal: "token", channels: this._current.channels};
      CONTROLS.rotate.call(this, message);
      if (this.canRenew) this.onevent(refused);
    },

    /** A planned reconnect. The state stays `open`, unless it takes long. */
    rotate: function (message) {
      var ms = number(message.retry, MIN_ROTATE_MS, MIN_ROTATE_MS);
      this._moveTo(message.cursor);
      this._leave();
      if (!this._lasted) ms = Math.max(ms, backoff(this._settings, this._failures++));
      this._timers.set("retry", ms, this._raceAll);
      if (ms <= RETURN_AFTER_MS) return;
      this.status.reason = "rotated by the server";
      this._wait(ms);
    }
  });

  /* --- Shared: one connection for all tabs ----------------------------------------------------------------------
   *
   * Browsers open six connections per host for all tabs together (HTTP/1.1). So tabs with the same server, query and token
   * share one: the leader, which holds the lock, posts the events of its ConnectionManager to the other tabs. A tab takes
   * what covers its channels and goes on from where it is, by the `before` and `channels` of each event. Otherwise it asks
   * the leader for more channels, or to go back. That covers a change of leader, a tab that opens late, one that follows
   * another channel, and one that was frozen.
   *
   * Also posted:
   *
   *     {kind: "hello", id, cursor, channels}     who leads? I am at this cursor ("": from now), with these channels
   *     {kind: "leader", cursor, channels, status}     I lead, and am at this cursor; at least once in a heartbeat
   *     {kind: "full", id}     the server takes no more channels: that tab shares the next connection of this kind
   *     {kind: "bye", id}
   *     {kind: "wake", networkChanged}     a tab was shown, or the network changed
   */

  function Shared(manager, settings, name, line) {
    this.onevent = nothing;
    this._manager = manager;
    this._env = settings.env;
    this._settings = settings;
    this._name = "pushcompat " + name;
    this._line = line; // of this tab
    this._others = {}; // channels of the tabs that follow, by id
    this._timers = new Timers(settings.env, this);
    this._heartbeat = HEARTBEAT_S;
    this._leading = false;
    this._stopped = false;
    this._releaseLock = nothing; // gives the lock back
  }

  /** Browsers with Web Locks have Promise and AbortController too. */
  Shared.usable = function (env) {
    return !!(env.locks && env.BroadcastChannel);
  };

  Shared.prototype = {
    start: function () {
      var self = this;
      try {
        this._channel = new this._env.BroadcastChannel(this._name);
      } catch (error) {
        this._lead(); // without other tabs
        return;
      }
      this._channel.onmessage = function (event) { self._hear(event.data); };
      this._request();
      this._greet();
      // A leader that lives answers at once.
      this._timers.set("silence", this._settings.stagger, this._steal);
    },

    stop: function () {
      this._stopped = true;
      this._timers.clearAll();
      this._manager.stop();
      if (!this._leading) this._post({kind: "bye", id: this._manager.client});
      this._releaseLock();
      if (this._channel) this._channel.close();
    },

    /** The channels of this tab, or its place, have changed. */
    follow: function (channels, cursor) {
      if (this._leading) this._followAll(cursor);
      else if (this._channel && String(channels) !== this._said) this._sayHello();
      else if (this._channel) this._greet();
    },

    wake: function (networkChanged) {
      if (this._leading) this._manager.wake(networkChanged);
      else this._post({kind: "wake", networkChanged: networkChanged});
    },

    check: function () {
      if (this._leading) this._manager.check();
    },

    _post: function (event) {
      if (this._channel) this._channel.postMessage(event);
    },

    // The lock

    _request: function () {
      var withdrawal = new root.AbortController();
      this._releaseLock = function () { withdrawal.abort(); };
      this._hold({signal: withdrawal.signal});
    },

    _steal: function () {
      this._releaseLock();
      this._hold({steal: true});
    },

    _hold: function (options) {
      var self = this, mine = {};
      this._mine = mine; // of several requests only the last one counts
      function granted() {
        if (self._stopped || self._mine !== mine) return undefined;
        var held = new root.Promise(function (resolve) { self._releaseLock = resolve; });
        self._lead();
        return held;
      }
      function refused(error) {
        if (self._stopped || self._mine !== mine) return;
        if (error.name !== "AbortError") self._lead(); // locks unavailable: use an own connection
        else self._follow();
      }
      this._env.locks.request(this._name, options, granted).then(nothing, refused);
    },

    _lead: function () {
      var self = this;
      this._leading = true;
      this._timers.clearAll();
      this._others = {}; // they ask again
      this._manager.cursor = this._line.position();
      this._manager.channels = this._line.channels();
      this._manager.onevent = function (event) {
        self._post(event);
        self.onevent(event);
      };
      this._sendHeartbeat();
      this._manager.start();
      // A change of the leader is no change of state, unless it takes long.
      this._timers.set("late", this._settings.stagger, function () {
        if (this._manager.status.state !== "open") this.onevent(this._manager.status);
      });
    },

    /** The lock was stolen because this tab was silent for too long: it queues for the lock again. */
    _follow: function () {
      this._leading = false;
      this._manager.stop();
      this._timers.clearAll();
      this._request();
      this._watch();
    },

    _sendHeartbeat: function () {
      var manager = this._manager;
      this._post({kind: "leader", cursor: manager.cursor, channels: manager.channels, status: manager.status});
      this._timers.set("beat", 1000 * manager.status.heartbeat, this._sendHeartbeat);
    },

    /** Asks for the channels of all tabs, or, if its own are too many for that, of this one. */
    _followAll: function (cursor) {
      if (this._all().length > MOST_CHANNELS) keysOf(this._others).forEach(this._turnAway, this);
      this._manager.follow(this._all(), cursor);
    },

    _all: function () {
      var others = this._others;
      return union([this._line.channels()].concat(keysOf(others).map(function (id) { return others[id]; })));
    },

    _turnAway: function (id) {
      delete this._others[id];
      this._post({kind: "full", id: id});
    },

    // Events of other tabs

    _hear: function (event) {
      if (this._leading) {
        if (REQUESTS[event.kind]) REQUESTS[event.kind].call(this, event);
        return;
      }
      if (REQUESTS[event.kind] || event.kind === "full" && event.id !== this._manager.client) return;
      if (event.kind === "leader") this._heartbeat = event.status.heartbeat;
      this._watch();
      if (event.kind === "leader") this._recognise(event);
      else this.onevent(event);
    },

    _recognise: function (event) {
      this.onevent({kind: "cursor", cursor: event.cursor, before: event.cursor, channels: event.channels});
      if (!this._stopped) this.onevent(event.status);
    },

    /** At most once a second: a tab that is behind receives many events before the leader answers. */
    _greet: function () {
      this._greetAgain = this._timers.has("greeting");
      if (this._greetAgain) return;
      this._sayHello();
      this._timers.set("greeting", 1000, function () {
        if (this._greetAgain) this._greet();
      });
    },

    _sayHello: function () {
      var channels = this._line.channels();
      this._said = String(channels);
      this._post({kind: "hello", id: this._manager.client, cursor: this._line.position(), channels: channels});
    },

    _watch: function () {
      var patience = 1000 * this._heartbeat * (2 + this._env.random() / 2); // not all at once
      this._timers.set("silence", patience, this._steal);
    }
  };

  /** What a leader hears. */
  var REQUESTS = {
    hello: function (event) {
      this._others[event.id] = event.channels;
      if (this._all().length > MOST_CHANNELS) this._turnAway(event.id);
      else this._manager.follow(this._all(), event.cursor);
      this._sendHeartbeat();
    },

    bye: function (event) {
      delete this._others[event.id];
      this._followAll("");
    },

    wake: function (event) { this._manager.wake(event.networkChanged); }
  };

  /* --- Leases: for pages that have no Web Locks -------------------------------------------------------------------
   *
   * Web Locks need https: or localhost. On other pages the item of localStorage that has the name of the lock holds the id
   * of the tab that has it, and `storage` events report changes to the others. Who writes it reads it again a moment later:
   * of several the last has it. If two tabs hold it for a moment, there are two connections, and nothing is lost. A tab
   * that crashed leaves its lease behind; it is stolen, like the lock of a leader that is silent.
   */

  function Leases(env) {
    this._env = env;
  }

  function canLease(env) {
    return !!(root.Promise && root.AbortController && env.storage && env.page && env.page.addEventListener);
  }

  Leases.prototype = {
    /** As `navigator.locks.request`, as far as it is used here. */
    request: function (name, options, granted) {
      var env = this._env, key = STORAGE_KEY + ".lease " + hash(name), id = env.random().toString(36).slice(2);
      var isHeld = false, isOver = false;
      function isMine() { return env.storage.getItem(key) === id; }
      function end() {
        isOver = true;
        env.page.removeEventListener("storage", changed, false);
        if (isMine()) env.storage.removeItem(key);
      }
      function take() {
        env.storage.setItem(key, id);
        env.setTimeout(confirm, LEASE_SETTLE_MS);
      }
      function confirm() {
        if (isOver || isHeld || !isMine()) return;
        isHeld = true;
        var release = granted();
        if (release) release.then(end);
        else end();
      }
      function changed(event) {
        if (event.key !== key || isMine()) return;
        if (isHeld) fail();
        else if (!env.storage.getItem(key)) take();
      }
      var fail = nothing;
      return new root.Promise(function (resolve, reject) {
        fail = function () {
          end();
          reject({name: "AbortError"});
        };
        if (options.signal) options.signal.addEventListener("abort", function () { if (!isHeld && !isOver) fail(); });
        env.page.addEventListener("storage", changed, false);
        if (options.steal || !env.storage.getItem(key)) take();
      });
    }
  };

  /** Names of locks contain tokens, which are not for localStorage. */
  function hash(text) {
    var value = 5381, i;
    for (i = 0; i < text.length; i++) value = (value * 33 ^ text.charCodeAt(i)) >>> 0;
    return value.toString(36);
  }

  /* --- Line: what subscriptions of one page share -----------------------------------------------------------------
   *
   * Subscriptions of the same server with the same options share a line. It asks for the union of their channels, from the
   * lowest of their cursors. Each has a cursor of its own, and takes an event only if
   *
   *   - the connection has all of its channels: else what came in the others would be passed over, and
   *   - the connection was not ahead of it: else what came in between would be.
   *
   * If one cannot take an event, the line asks for a connection that covers it. Changes of one turn of the event loop are
   * one change. Channels that nobody follows any more are dropped some seconds later.
   *
   * Some begin on a line of their own, and join once they have a position: with `earliest`, for resets for what is evicted
   * are withheld from its connection; with a cursor of another epoch; and if the server refused the channels of the line:
   * then each asks for its own, so that only those that are refused end.
   */

  var lines = []; // that others can join

  function Line(subscription, isOpen) {
    this._options = subscription._options;
    this._env = this._options.env;
    this._prefix = subscription._prefix;
    this._query = subscription._query;
    this._subscriptions = [];
    this._isOpen = isOpen; // to others
    this._number = 0; // of lines that are alike: the server takes only so many channels in one
    this._timers = new Timers(this._env, this);
    this._status = null; // the last `state` event
    this._tip = ""; // where the connection is
    this._source = null;
    this._refusals = 0; // of tokens, in a row
    this._turn = 0; // counts stops, so that a token that comes late is known
    if (isOpen) this._list();
  }

  function linesLike(subscription) {
    return lines.filter(function (line) { return line._isAlike(subscription); });
  }

  /** A line for a subscription: one that there is, or a new one. */
  function lineFor(subscription) {
    var alike = linesLike(subscription);
    var open = alike.filter(function (line) { return line._takes(subscription); })[0];
    var isAlone = subscription.cursor === EARLIEST || subscription._isSplit ||
      alike.some(function (line) { return !line._hasEpoch(subscription); });
    return !isAlone && open || new Line(subscription, !isAlone);
  }

  Line.prototype = {
    join: function (subscription) {
      this._subscriptions.push(subscription);
      subscription._line = this;
      if (!subscription._seen && this._tip && subscription.cursor !== EARLIEST) {
        subscription.cursor = subscription._seen = this._tip;
      }
      if (this._subscriptions.length === 1) {
        listen(this._env, this, WAKERS, "addEventListener");
        this._askToken();
        return;
      }
      this.changed(subscription);
      if (this._status) subscription._hear(this._status);
    },

    leave: function (subscription) {
      this._subscriptions.splice(this._subscriptions.indexOf(subscription), 1);
      subscription._line = null;
      this._timers.set("change", 0, this._update);
      if (this._subscriptions.length) return;
      this._stop();
      listen(this._env, this, WAKERS, "removeEventListener");
      if (this._isOpen) lines.splice(lines.indexOf(this), 1);
    },

    /** Its channels or its cursor are other ones. */
    changed: function (subscription) {
      if (this._subscriptions.length > 1 && this.channels().length > MOST_CHANNELS) subscription._move();
      else if (!this._timers.has("change")) this._timers.set("change", 0, this._update);
    },

    channels: function () {
      return union(this._subscriptions.map(function (each) { return each.channels; }));
    },

    /** The lowest cursor; first one of an epoch that is gone, whose reset is due. */
    position: function () {
      var tip = this._tip;
      return this._subscriptions.reduce(function (lowest, each) {
        if (!lowest || !isBehind(each._seen, lowest)) return lowest || each._seen;
        return sameEpoch(each._seen, lowest) || !sameEpoch(each._seen, tip) ? each._seen : lowest;
      }, "");
    },

    /** Called by the browser. */
    handleEvent: function (event) {
      if (!this._source) return;
      if (event.type === "beforeunload") this._source.check();
      else this._source.wake(event.type === "online");
    },

    _list: function () {
      var numbers = linesLike(this).map(function (line) { return line._number; });
      while (numbers.indexOf(this._number) >= 0) this._number++;
      this._isOpen = true;
      lines.push(this);
    },

    _isAlike: function (subscription) {
      var own = this._options, other = subscription._options;
      return this._prefix === subscription._prefix && this._query === subscription._query && own.token === other.token &&
        own.given === other.given && own.withCredentials === other.withCredentials &&
        keysOf(DEFAULTS).every(function (name) { return String(own[name]) === String(other[name]); });
    },

    _takes: function (subscription) {
      return this._hasEpoch(subscription) && union([this.channels(), subscription.channels]).length <= MOST_CHANNELS;
    },

    _hasEpoch: function (subscription) {
      var position = this.position();
      return !position || !subscription._seen || sameEpoch(position, subscription._seen);
    },

    _isForTabs: function () {
      return this._options.shareTabs && Shared.usable(this._env);
    },

    _update: function () {
      if (this._source) this._source.follow(this.channels(), this.position());
    },

    _stop: function () {
      this._turn++;
      this._timers.clearAll();
      if (this._source) this._source.stop();
      this._source = null;
    },

    _open: function (token) {
      var options = this._options, subscription = this._subscriptions[0], query = this._query;
      if (token) query += "token=" + encodeURIComponent(token) + "&";
      var isEarliest = subscription.cursor === EARLIEST, channels = this.channels();
      var source = new ConnectionManager(options, this._prefix, query, channels, this.position(), isEarliest);
      source.canRenew = typeof options.token === "function" && !this._refusals;
      if (this._isOpen && this._isForTabs()) {
        var name = [options.transports, this._prefix + query, this._number, options.withCredentials ? "cookies" : ""];
        source = new Shared(source, options, name.join(" "), this);
      }
      this._source = source;
      source.onevent = this._hear.bind(this);
      source.start();
    },

    // Events

    _hear: function (event) {
      var isServed = true;
      if (event.kind === "refused") {
        this._refused(event);
        return;
      }
      if (event.kind === "full") {
        this._stop();
        this._number++;
        this._askToken();
        return;
      }
      if (event.kind === "state") this._setStatus(event);
      else this._tip = event.kind === "cursor" ? event.cursor || this._tip : event.message.id || event.message.cursor;
      this._each(function (each) { isServed = each._hear(event) && isServed; });
      if (this._source && !isServed) this.changed(this._subscriptions[0]);
      if (event.kind !== "state" && !this._isOpen) this._each(this._settle);
    },

    /** Callbacks may close some, and add others, which begin after this event. */
    _each: function (action) {
      this._subscriptions.slice().forEach(function (each) {
        if (each._line === this) action.call(this, each);
      }, this);
    },

    _setStatus: function (status) {
      this._status = status;
      if (status.state === "open") this._timers.set("lasted", MIN_LIFETIME_MS, this._lasted);
      else this._timers.clear("lasted");
    },

    _lasted: function () {
      this._refusals = 0;
      if (this._subscriptions.length > 1) this._each(function (each) { each._splits = 0; });
    },

    _setState: function (state, reason) {
      this._hear({kind: "state", state: state, transport: null, reason: reason, channels: []});
    },

    /** It has begun on a line of its own, and can share one now. */
    _settle: function (subscription) {
      if (subscription.cursor === EARLIEST || subscription._splits > 1) return;
      var alike = linesLike(subscription);
      var other = alike.filter(function (line) { return line._takes(subscription); })[0];
      // They would have to go back, or are of a log that is gone.
      if (alike.some(function (line) { return isBehind(subscription._seen, line.position()); })) return;
      subscription._isSplit = false;
      if (other || this._isForTabs()) subscription._move();
      else this._list();
    },

    /** The server's answer is about all channels of the request. Who follows other ones, too, must ask for itself. */
    _refused: function (event) {
      var isToken = event.refusal === "token" && typeof this._options.token === "function";
      function isMeant(each) { return covers(each.channels, event.channels); }
      if (isToken && (!this._refusals || this._subscriptions.every(isMeant))) {
        this._renewToken(event.reason);
        return;
      }
      this._stop();
      this._each(function (each) {
        if (isMeant(each)) each._refuse(event.reason);
        else each._split();
      });
    },

    // Tokens

    /** A token that was refused has probably expired: the first is replaced at once, later ones after backoff. */
    _renewToken: function (reason) {
      var refusals = this._refusals++;
      this._stop();
      this._timers.set("token", refusals && backoff(this._options, refusals), function () {
        if (this._status && this._status.state === "waiting") this._setState("connecting", null);
        if (this._subscriptions.length) this._askToken(); // unless a callback has closed the last
      });
      if (refusals) this._setState("waiting", reason);
    },

    _askToken: function () {
      var self = this, turn = this._turn, token = this._options.token;
      function isAsked() { return turn === self._turn && !self._source; } // the token may come late, or twice
      function got(value) {
        if (isAsked()) self._open(value);
      }
      function failed(error) {
        report(self._env, error);
        if (isAsked()) self._renewToken("no token: " + (error && error.message || error));
      }
      if (typeof token !== "function") {
        got(token);
        return;
      }
      try {
        token = token(got);
      } catch (error) {
        failed(error);
        return;
      }
      if (token && typeof token.then === "function") token.then(got, failed);
      else if (token !== undefined) got(token);
    }
  };

  var WAKERS = ["beforeunload", "online", "visibilitychange"];

  function listen(env, listener, names, method) {
    [env.page, env.document].forEach(function (target) {
      names.forEach(function (name) {
        if (target && target[method]) target[method](name, listener, false);
      });
    });
  }

  /* --- Subscription: the page's object --------------------------------------------------------------------------- */

  function Subscription(url, options) {
    var self = this, page = options.env.document, signal = options.signal;
    var parts = /^([^?#]*\/)([^\/?#]+)(\?[^#]*)?(#|$)/.exec(absolute(url && url.href || String(url || ""), options.env));
    if (!parts) throw new Error("PushCompat: use /channels/NAME, not " + url);
    this.state = "connecting";
    this.transport = null;
    this.cursor = options.cursor || (options.last ? EARLIEST : ""); // to resume from
    this._seen = this.cursor === EARLIEST ? "" : this.cursor; // what is not after it is dropped
    this.channels = named(decoded(parts[2]).split(","));
    this._prefix = parts[1];
    this._query = parts[3] ? parts[3] + "&" : "?";
    this._options = options;
    this._env = options.env;
    this._timers = new Timers(options.env, this);
    this._pending = []; // calls that wait for their turn
    this._line = null;
    this._isSplit = false; // it asks for its own channels only
    this._splits = 0;
    this._over = false;
    this._error = null; // if the server has refused it
    this._handlers = Object.create(null); // by type
    this._readers = [];
    this._paused = !!page && page.prerendering; // its WebSockets and locks would wait, its event streams would not
    this._early = []; // calls before subscribe() has returned
    // So that they work on the object itself when called through a reactive proxy (Vue, Alpine), or alone.
    ["add", "remove", "on", "off", "close"].forEach(function (name) { self[name] = self[name].bind(self); });
    listen(this._env, this, keysOf(LIFE), "addEventListener");
    if (signal && signal.aborted) this.close();
    else if (signal) signal.addEventListener("abort", this.close);
    if (!this._paused && !this._over) this._start();
    if (this._early.length) this._timers.set("early", 0, this._callEarly);
    else this._early = null;
  }

  Subscription.prototype = {
    add: function () {
      var names = this.channels.concat(named([].concat.apply([], arguments)));
      this._change(names.filter(function (name, i) { return names.indexOf(name) === i; }));
    },

    remove: function () {
      var names = [].slice.call(arguments);
      this._change(this.channels.filter(function (name) { return names.indexOf(name) < 0; }));
    },

    /** Messages of this type, beside `onMessage`. */
    on: function (type, handler) {
      this._handlers[type] = (this._handlers[type] || []).concat(handler);
      return this;
    },

    off: function (type, handler) {
      this._handlers[type] = (this._handlers[type] || []).filter(function (other) { return other !== handler; });
      return this;
    },

    close: function () {
      this._finish("closed by the page");
    },

    _finish: function (reason) {
      this._over = true;
      listen(this._env, this, keysOf(LIFE), "removeEventListener");
      if (this._options.signal) this._options.signal.removeEventListener("abort", this.close);
      this._pending = [];
      this._end("closed", reason);
      this._readers.forEach(function (reader) { reader._serve(); });
    },

    /** A page that does not listen for it sees it on the console. */
    _refuse: function (reason) {
      var log = this._env.console;
      this._error = new Error("PushCompat: " + this._prefix + this.channels + ": " + reason);
      if (!this._options.onState && log) log.error(this._error.message);
      this._finish(reason);
    },

    _change: function (channels) {
      var changed = channels.length !== this.channels.length;
      this.channels = channels;
      if (this._over || this._paused || !changed) return;
      if (!channels.length) this._end("closed", "no channels are left");
      else if (this._line) this._line.changed(this);
      else this._start();
    },

    _end: function (state, reason) {
      if (this._line) this._line.leave(this);
      this._changeState(state, null, reason);
    },

    _start: function () {
      if (this.state !== "open") this._changeState("connecting", null, null);
      if (!this._over && !this._line && this.channels.length) lineFor(this).join(this); // a callback may have done it
    },

    // Its line

    /** To another line. */
    _move: function () {
      this._line.leave(this);
      lineFor(this).join(this);
    },

    _split: function () {
      this._isSplit = true;
      this._splits++;
      this._move();
    },

    /** Returns whether the connection that an event is from serves this subscription. */
    _hear: function (event) {
      var isCovered = covers(event.channels, this.channels), isState = event.kind === "state";
      var from = event.before === "" ? event.cursor : event.before; // "": the previous cursor is not known
      if (isState && event.state !== "open") isCovered = true;
      if (!isCovered || isBehind(this._seen, from)) return false;
      if (isState) this._changeState(event.state, event.transport, event.reason);
      else EVENTS[event.kind].call(this, event);
      return true;
    },

    /** Whether all of its connection is for this one. */
    _isWhole: function (event) {
      return covers(this.channels, event.channels);
    },

    _changeState: function (state, transport, reason) {
      if (this.state === state && this.transport === transport) return;
      this.state = state;
      this.transport = transport;
      this._run("onState", {state: state, transport: transport, reason: reason});
    },

    // Callbacks

    /** Calls back in order, each after a random delay within the spread that the server asks for. */
    _call: function (name, message) {
      var self = this, call = {name: name, message: message, ready: !message.spread};
      this._pending.push(call);
      if (message.spread) {
        this._env.setTimeout(function () {
          call.ready = true;
          self._callPending();
        }, jitter(this._env, number(message.spread, 0, 0)));
      }
      this._callPending();
    },

    _callPending: function () {
      while (this._pending.length && this._pending[0].ready) {
        var call = this._pending.shift();
        this._run(call.name, call.message);
      }
    },

    _callEarly: function () {
      var early = this._early;
      this._early = null;
      early.forEach(function (call) { this._run(call.name, call.argument); }, this);
    },

    _run: function (name, argument) {
      if (this._early) {
        this._early.push({name: name, argument: argument});
        return;
      }
      trace(this._options, name, this.channels, argument);
      this._try(this._options[name], argument);
      if (name !== "onMessage") return;
      (this._handlers[argument.type] || []).forEach(function (handler) {
        if (!this._over) this._try(handler, argument);
      }, this);
      this._readers.forEach(function (reader) { reader._take(argument); });
    },

    _try: function (callback, argument) {
      try {
        if (callback) callback.call(this._options, argument);
      } catch (error) {
        report(this._env, error);
      }
    },

    // Page lifecycle

    /** Called by the browser: a subscription is its own event listener. */
    handleEvent: function (event) {
      LIFE[event.type].call(this, event);
    },

    /** Gives up connection, lock and channel: a page in the back-forward cache is no subscriber. */
    _pause: function () {
      this._paused = true;
      if (this.channels.length) this._end("waiting", "the page was left");
    },

    /** Also called when a page is shown for the first time: also for a prerendered one, before anybody sees it. */
    _resume: function () {
      var page = this._env.document, wasPaused = this._paused;
      this._paused = wasPaused && !!page && !!page.prerendering;
      if (wasPaused && !this._paused && this.channels.length) this._start();
    }
  };

  var LIFE = {
    pagehide: Subscription.prototype._pause,
    freeze: Subscription.prototype._pause,
    pageshow: Subscription.prototype._resume,
    prerenderingchange: Subscription.prototype._resume,
    resume: Subscription.prototype._resume
  };

  var EVENTS = {
    message: function (event) {
      if (!isNewer(event.message.id, this._seen)) return;
      this._seen = event.message.id;
      this.cursor = event.isEarliest ? EARLIEST : this._seen;
      if (this._isWhole(event) || covers(this.channels, [event.message.channel])) this._call("onMessage", event.message);
    },

    cursor: function (event) {
      this._seen = advance(this._seen, event.cursor);
      if (this._seen) this.cursor = this._seen;
    },

    /**
     * Ignored if it is about a connection that another one needs: it was behind this one, and is not past it now. What
     * others have lost only moves this one.
     */
    reset: function (event) {
      var message = event.message, cursor = message.cursor, own = this.channels, lost = message.channels;
      if (!isNewer(cursor, this._seen) && isNewer(this._seen, event.origin)) return;
      this.cursor = this._seen = cursor;
      if (Array.isArray(lost) && !this._isWhole(event)) {
        lost = lost.filter(function (name) { return own.indexOf(name) >= 0; });
        if (!lost.length) return;
        message = fill({channels: lost}, message);
      }
      this._call("onReset", message);
    }
  };

  /**
   * `for await (const message of subscription)`. Messages are kept until they are asked for. The loop ends when the
   * subscription is closed, with an error if the server has refused it; who leaves the loop closes the subscription.
   */
  function Reader(subscription) {
    this._subscription = subscription;
    this._kept = [];
    this._waiting = [];
    subscription._readers.push(this);
  }

  Reader.prototype = {
    next: function () {
      var self = this;
      return new root.Promise(function (resolve, reject) {
        self._waiting.push({resolve: resolve, reject: reject});
        self._serve();
      });
    },

    "return": function () {
      this._kept = [];
      this._subscription.close();
      return root.Promise.resolve({value: undefined, done: true});
    },

    _take: function (message) {
      this._kept.push(message);
      this._serve();
    },

    _serve: function () {
      var subscription = this._subscription, waiting;
      while (this._waiting.length && (this._kept.length || subscription._over)) {
        waiting = this._waiting.shift();
        if (this._kept.length) waiting.resolve({value: this._kept.shift(), done: false});
        else if (subscription._error) waiting.reject(subscription._error);
        else waiting.resolve({value: undefined, done: true});
      }
    }
  };

  if (root.Symbol && root.Symbol.asyncIterator) {
    Subscription.prototype[root.Symbol.asyncIterator] = function () { return new Reader(this); };
  }

  /** Reports what a callback has thrown, which stops nothing here. */
  function report(env, error) {
    var isPage = env.document || env.page && env.page.importScripts; // or a worker of one
    if (isPage || !env.console) env.setTimeout(function () { throw error; }, 0);
    else env.console.error(error); // an exception in a timer would end a Node.js process
  }

  // Addresses

  function originOf(url) {
    return url.replace(/^([^\/]*\/\/[^\/?#]*).*$/, "$1");
  }

  function isLoopback(url) {
    return /^https?:\/\/(localhost|127\.[\d.]+|\[::1])(:|\/)/i.test(url);
  }

  /** Whether it names a host of a private network. */
  function isLocal(url) {
    return isLoopback(url) || /^https?:\/\/(10|192\.168|172\.(1[6-9]|2\d|3[01])|169\.254)\./.test(url) ||
      /^https?:\/\/(\[f[cde]|[^.:\/\[]+[:\/]|[^:\/]+\.(local|localhost)[:\/])/i.test(url);
  }

  /** Of a page in a frame with `srcdoc` the base is the parent's; of a worker from `blob:` it is what follows that. */
  function absolute(url, env) {
    var base = /^([a-z]+:)(\/\/[^\/?#]*)([^?#]*)/i.exec(
      String(env.document && env.document.baseURI || env.location && env.location.href || "").replace(/^blob:/, ""));
    url = url.replace(/^\s+/, "").replace(/^ws(s?:)/i, "http$1");
    if (base && !/^[a-z]+:/i.test(url)) {
      if (!/^\//.test(url)) url = base[3].replace(/[^\/]*$/, "").replace(/^$/, "/") + url;
      if (!/^\/\//.test(url)) url = base[2] + url;
      url = base[1] + url;
    }
    if (!/^https?:\/\/[^\/]/i.test(url)) throw new Error("PushCompat: use https://HOST/channels/NAME, not " + url);
    return url;
  }

  /** A name that the server would refuse, or take for more than one, is the page's mistake. */
  function named(names) {
    names.forEach(function (name) {
      if (!/^[\w.:~@\-]{1,128}$/.test(name)) throw new Error("PushCompat: invalid channel name: " + name);
    });
    return names;
  }

  function decoded(text) {
    try {
      return decodeURIComponent(text);
    } catch (error) {
      return text; // and no channel's name
    }
  }

  function subscribe(url, options) {
    var settings = {};
    keysOf(options).forEach(function (name) {
      if (options[name] !== null) settings[name] = options[name];
    });
    settings.transports = [].concat(fill(settings, DEFAULTS).transports);
    settings.transports.forEach(function (name) {
      if (!TRANSPORTS[name]) throw new Error("PushCompat: unknown transport: " + name);
    });
    settings.given = settings.env;
    settings.env = environment(settings.env);
    if (settings.debug === undefined) settings.debug = stored(settings.env, STORAGE_KEY + ".debug");
    return new Subscription(url, settings);
  }

  /* --- UpdateCheckSocket: compatibility class with the API of 2009 --------------------------------------------------
   *
   * Shows each message in `statusElement`, and calls back for each UPDATED, and if updates were missed. `resource` is a
   * channel's path, like "/channels/chat".
   */
  function UpdateCheckSocket(host, port, resource, statusElement, callback) {
    var secure = root.location && root.location.protocol === "https:";
    function show(text) {
      if (statusElement) statusElement.textContent = text;
    }
    function updated() {
      show("UPDATED");
      if (callback) callback();
    }
    var url = (secure ? "https://" : "http://") + host + ":" + port + "/" + resource.replace(/^\//, "");
    this._subscription = subscribe(url, {
      onMessage: function (message) {
        if (message.data === "UPDATED") updated();
        else show(typeof message.data === "string" ? message.data : JSON.stringify(message.data));
      },
      onReset: updated,
      onState: function (change) { show(change.state + (change.transport ? " (" + change.transport + ")" : "")); }
    });
  }

  UpdateCheckSocket.prototype = {
    /** For the NOOPs that kept NAT entries alive: the server's heartbeat does that now. */
    send: nothing,

    close: function () {
      this._subscription.close();
    }
  };

  return {subscribe: subscribe, UpdateCheckSocket: UpdateCheckSocket};
}));
