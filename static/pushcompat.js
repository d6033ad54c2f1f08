/*!
 * pushcompat.js: follow channels of a pushcompat server on every network. MIT license.
 *
 *     var subscription = PushCompat.subscribe("/channels/chat", {
 *       onMessage: function (message) { … message.data … },
 *       onReset: function () { … messages were lost: look again … }
 *     });
 *
 * The parts, each on top of the one before it:
 *
 *     transports     WebSocket, EventSource, long-poll: objects of one shape, for one connection each
 *     Line           always has a connection: races transports, watches, comes back, finds its way to a better one
 *     Shared         a Line for all tabs: the one that holds a lock has it, the others hear of it
 *     Subscription   what the page has: callbacks, channels, token
 *
 * What holds them together is the cursor. Every connection begins at it, every message moves it, and what is not after
 * it is dropped. So connections may overlap, tabs may take over from each other, and nothing is lost or repeated.
 *
 * The language is ES5. Of what came later (Web Locks, and the Promise that they want) nothing is used unlooked for.
 */
(function (root, factory) {
  "use strict";
  var api = factory(root);
  if (typeof module === "object" && module.exports) {
    module.exports = api;
  } else {
    if (typeof define === "function" && define.amd) define([], function () { return api; });
    root.PushCompat = api;
    root.UpdateCheckSocket = api.UpdateCheckSocket;
  }
}(typeof self !== "undefined" ? self : typeof global !== "undefined" ? global : this, function (root) {
  "use strict";

  var DEFAULTS = {
    transports: ["websocket", "eventsource", "longpoll"],
    shareTabs: true,
    stagger: 2500, // ms after which the next transport starts beside one that says nothing
    openTimeout: 10000, // ms after which a connection that delivered nothing is given up
    retryMin: 500, // ms: full jitter between 0 and this, which doubles with each failure …
    retryMax: 30000, // … up to this
    rememberFor: 30 * 60000, // ms: a network that blocked WebSocket may be another one by then
    upgradeAfter: [60000, 5 * 60000, 30 * 60000], // ms on a fallback before better transports are tried again
    failures: 3 // connections that did not last before another transport goes first
  };
  var SHORT = 1000; // ms: a connection that lived less did not last
  var SOON = 5000; // ms before the way back to a transport that had worked on this page
  var HOLD = 25; // s that a poll may be held: fits every 30 s cap
  var SLACK = 5; // s that a lifetime may be late
  var HEARTBEAT = 15; // s, where the server has not said
  var MEMORY = "pushcompat.transport"; // in localStorage
  var EARLIEST = "earliest"; // as a cursor: all that the server has kept

  /* --- Small things ------------------------------------------------------------------------------------------- */

  function nothing() {}

  function fill(target, source) {
    for (var name in source) {
      if (Object.prototype.hasOwnProperty.call(source, name) && target[name] === undefined) target[name] = source[name];
    }
    return target;
  }

  /** What the client uses of its surroundings; `options.env` replaces any of it. */
  function environment(given) {
    var env = fill({}, given);
    ["WebSocket", "EventSource", "XMLHttpRequest", "BroadcastChannel", "location", "document"].forEach(function (name) {
      if (env[name] === undefined) env[name] = root[name];
    });
    try {
      if (env.storage === undefined) env.storage = root.localStorage;
    } catch (error) {
      // forbidden here: there are pages that may not even look
    }
    return fill(env, {
      page: root,
      locks: root.navigator && root.navigator.locks,
      setTimeout: function (action, ms) { return root.setTimeout(action, ms); },
      clearTimeout: function (id) { root.clearTimeout(id); },
      now: function () { return new Date().getTime(); },
      random: Math.random
    });
  }

  /** Timers with names: setting one anew replaces it. */
  function Timers(env) {
    this._env = env;
    this._ids = {};
  }

  Timers.prototype = {
    set: function (name, ms, action) {
      var self = this;
      this.clear(name);
      this._ids[name] = this._env.setTimeout(function () {
        delete self._ids[name];
        action();
      }, ms);
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

  /** A random time up to one that doubles with each failure: so a crowd that was cut off at once comes back spread. */
  function backoff(settings, failures) {
    return settings.env.random() * Math.min(settings.retryMax, settings.retryMin * Math.pow(2, failures));
  }

  /* --- Cursors: <epoch>-<sequence>, of fixed width, comparable as text within an epoch -------------------------- */

  function sameEpoch(a, b) {
    return a.slice(0, 8) === b.slice(0, 8);
  }

  /** Whether a message with this id was not seen yet by somebody who stands there. */
  function isNews(id, cursor) {
    return !sameEpoch(id, cursor) || id > cursor;
  }

  /** Where one stands after the server has named a cursor that is no message's: another epoch's waits for its reset. */
  function moved(cursor, named) {
    return !cursor || cursor === EARLIEST || (sameEpoch(named, cursor) && named > cursor) ? named : cursor;
  }

  /* --- Transports -----------------------------------------------------------------------------------------------
   *
   *     name                 as in ?transport=
   *     usable()             whether this browser has it
   *     open(address)        `address()` is the URL to connect to, from where the client stands
   *     close()              ends it; whoever calls this listens no more
   *     onmessage(message)   an envelope or a control message; the first is always `open`
   *     onclose(why, refusal)   it has ended, or is no use; who hears this closes it. `refusal` is "token" or "final",
   *                          where the server will not have us as we are
   *
   * A transport works once a message came through it. That it has opened proves nothing: there are proxies that accept
   * WebSockets and virus scanners that hold streams back until they end.
   */

  function parse(text) {
    try {
      return JSON.parse(text);
    } catch (error) {
      return null;
    }
  }

  /** Hands on what came; what is not the server's (the page of a captive portal) ends the connection. */
  function receive(transport, text) {
    var message = parse(text);
    if (message && typeof message === "object") transport.onmessage(message);
    else transport.onclose("the answer was not the server's");
  }

  function WebSocketTransport(env) {
    this._env = env;
  }

  WebSocketTransport.prototype = {
    name: "websocket",

    usable: function () {
      return !!this._env.WebSocket; // whatever its type: old engines say "object"
    },

    open: function (address) {
      var self = this, socket = new this._env.WebSocket(address().replace(/^http/, "ws"));
      this._socket = socket;
      socket.onmessage = function (event) { receive(self, event.data); };
      socket.onclose = function (event) {
        var code = event.code || 1006, refusal;
        if (code >= 4400 && code <= 4499) refusal = code === 4401 ? "token" : "final";
        self.onclose(event.reason || "the WebSocket ended with code " + code, refusal);
      };
    },

    close: function () {
      if (this._socket) this._socket.close();
    }
  };

  function EventSourceTransport(env) {
    this._env = env;
  }

  EventSourceTransport.prototype = {
    name: "eventsource",

    usable: function () {
      return !!this._env.EventSource;
    },

    open: function (address) {
      var self = this, source = new this._env.EventSource(address());
      function listener(event) { receive(self, event.data); }
      this._source = source;
      source.addEventListener("message", listener, false);
      source.addEventListener("control", listener, false);
      // Does not reconnect by itself: it would give up for good on a gateway's 502, and proxies drop its Last-Event-ID.
      source.onerror = function () { self.onclose("the event stream ended"); };
    },

    close: function () {
      if (this._source) this._source.close();
    }
  };

  /** One poll after the other, told as if it were a stream. The first is answered at once, so that it proves itself. */
  function LongPollTransport(env) {
    this._env = env;
  }

  LongPollTransport.prototype = {
    name: "longpoll",

    usable: function () {
      return !!this._env.XMLHttpRequest;
    },

    open: function (address) {
      this._address = address;
      this._poll(0);
    },

    close: function () {
      var request = this._request;
      this._request = null;
      if (request) request.abort();
    },

    _poll: function (wait) {
      var self = this, request = this._request = new this._env.XMLHttpRequest();
      request.open("GET", this._address() + "&wait=" + wait, true);
      request.onreadystatechange = function () {
        if (request.readyState === 4 && request === self._request) self._answered(request);
      };
      request.send(null);
    },

    _answered: function (request) {
      var status = request.status, answer = parse(request.responseText) || {};
      if (status === 200 && answer.messages) this._tell(answer, request);
      else if (status === 200) receive(this, "");
      else if (!status) this.onclose("the poll was cut off");
      else if (answer.status !== status) this.onclose("a gateway answered with " + status); // that will pass
      else this.onclose(answer.detail, status === 401 ? "token" : FINAL.test(status) ? "final" : "");
    },

    _tell: function (answer, request) {
      var cursor = answer.cursor, i;
      this.onmessage({control: "open", cursor: "", heartbeat: HOLD, lifetime: HOLD + SLACK}); // again each time
      if (answer.reset) {
        this.onmessage({control: "reset", cursor: cursor, channels: answer.reset, spread: answer.spread});
      }
      for (i = 0; i < answer.messages.length; i++) this.onmessage(answer.messages[i]);
      this.onmessage({control: answer.retry ? "rotate" : "ping", cursor: cursor, retry: answer.retry});
      if (this._request === request) this._poll(HOLD); // else somebody who was told has closed it
    }
  };

  var FINAL = /^4(?!08|26|29)\d\d$/; // 408, 426 and 429 pass, or are for another transport
  var TRANSPORTS = [WebSocketTransport, EventSourceTransport, LongPollTransport];

  function makeTransport(name, env) {
    for (var i = 0; i < TRANSPORTS.length; i++) {
      if (TRANSPORTS[i].prototype.name === name) return new TRANSPORTS[i](env);
    }
    throw new Error("PushCompat: no transport is called " + name);
  }

  /* --- Line: always a connection -------------------------------------------------------------------------------
   *
   * A round tries transports, the best first, the next one beside it when that says nothing for a while or at once when
   * it fails. The first to deliver wins and becomes the current one; what was current until then, and everyone else in
   * the round, is closed. A round may run beside a current connection: that is how a better transport is found, and how
   * a connection that may have died with a change of network is replaced.
   *
   * Which transport goes first: the one that worked last, unless it has used up its budget of connections that did not
   * last. A transport that only ever failed while nothing else worked has lost nothing: an outage demotes nobody.
   *
   * `onevent` is told, in plain objects that can be posted to other tabs:
   *
   *     {kind: "message", message: envelope, before: the cursor until then}
   *     {kind: "cursor",  cursor, before}      nothing in between was for us
   *     {kind: "reset",   message: control}
   *     {kind: "state",   state, transport, reason, heartbeat}
   *     {kind: "refused", reason, refusal}     it will not come back by itself
   */

  function Line(settings, base, cursor) {
    var env = settings.env;
    this.cursor = cursor;
    this.onevent = nothing;
    this.status = {kind: "state", state: "connecting", transport: null, reason: null, heartbeat: HEARTBEAT};
    this._settings = settings;
    this._env = env;
    this._base = base;
    this._client = env.random().toString(36).slice(2);
    this._timers = new Timers(env);
    this._names = settings.transports.filter(function (name) { return makeTransport(name, env).usable(); });
    this._round = {names: [], waiting: [], racing: [], failed: []}; // names, but for those that race
    this._current = null;
    this._confirmed = false; // whether the server, on this connection, has named the epoch of the cursor
    this._failures = 0; // rounds that failed, and connections that did not last, in a row
    this._strikes = {}; // by transport
    this._worked = {}; // on this page
    this._opened = 0; // connections
    this._upgrades = 0; // tries to get back from the fallback
    this._last = this._remembered();
  }

  Line.prototype = {
    start: function () {
      this._stopped = false;
      if (this._names.length) this._connect();
      else this.onevent({kind: "refused", reason: "no transport is usable here", refusal: "final"});
    },

    stop: function () {
      this._stopped = true;
      this._endRound();
      this._leave();
      this._timers.clearAll();
    },

    /** Goes back to an earlier cursor, for somebody who stands there. Which of two epochs is gone, the server says. */
    rewind: function (cursor) {
      if (!this._confirmed && !sameEpoch(cursor, this.cursor)) return;
      this._leave();
      this.cursor = cursor;
      this._race(this._order());
    },

    /** Something happened that may have ended the connection unnoticed, or may have made one possible. */
    wake: function (networkChanged) {
      if (networkChanged) { // what was learned of the last one is no news of this one
        this._last = null;
        this._strikes = {};
        this._upgrades = 0;
        this._timers.clear("upgrade");
      }
      if (!this._current) {
        if (networkChanged || this._timers.has("retry")) this._connect();
      } else if (networkChanged || this._env.now() - this._heardAt > this._patience()) {
        this._race(this._order());
      }
    },

    _connect: function () {
      this._say("connecting", null);
      this._race(this._order());
    },

    _say: function (state, transport) {
      var before = this.status;
      if (before.state === state && before.transport === transport) return;
      this.status = fill({state: state, transport: transport}, before);
      this.onevent(this.status);
    },

    // A round

    _order: function () {
      var self = this, names = this._names;
      if (names.every(function (name) { return self._isDemoted(name); })) this._strikes = {};
      function rank(name) { return self._isDemoted(name) ? 2 : name === self._last ? 0 : 1; }
      return names.slice().sort(function (a, b) { return rank(a) - rank(b) || names.indexOf(a) - names.indexOf(b); });
    },

    _strike: function (name) {
      this._strikes[name] = (this._strikes[name] || 0) + 1;
    },

    _isDemoted: function (name) {
      return this._strikes[name] >= this._settings.failures;
    },

    _race: function (names) {
      if (this._stopped) return; // by the page, on hearing that it begins
      this._endRound();
      this._timers.clear("retry");
      this._round = {names: names, waiting: names.slice(), racing: [], failed: []};
      this._next();
    },

    _endRound: function () {
      this._timers.clear("stagger");
      while (this._round.racing.length) this._discard(this._round.racing.pop());
    },

    _discard: function (transport) {
      this._timers.clear(transport.limit);
      transport.onmessage = transport.onclose = nothing;
      transport.close();
    },

    _next: function () {
      var self = this, round = this._round, name = round.waiting.shift(), transport = makeTransport(name, this._env);
      this._timers.clear("stagger");
      if (round.waiting.length) this._timers.set("stagger", this._settings.stagger, function () { self._next(); });
      round.racing.push(transport);
      transport.onmessage = function (message) { self._receive(transport, message); };
      transport.onclose = function (why, refusal) { self._lost(transport, why, refusal); };
      transport.limit = "open " + ++this._opened; // not its name: a current one may have that, too
      this._timers.set(transport.limit, this._settings.openTimeout, function () {
        self._lost(transport, name + " delivered nothing");
      });
      try {
        transport.open(function () { return self._address(name); });
      } catch (error) {
        this._lost(transport, name + ": " + error.message);
      }
    },

    _address: function (name) {
      var address = this._base + "transport=" + name + "&format=json&client=" + this._client;
      return this.cursor ? address + "&cursor=" + encodeURIComponent(this.cursor) : address;
    },

    _win: function (transport, open) {
      var racing = this._round.racing, self = this;
      // Those before it had more time and delivered nothing.
      var silent = racing.splice(0, racing.indexOf(transport) + 1).slice(0, -1);
      silent.forEach(function (loser) {
        self.status.reason = loser.name + " delivered nothing";
        self._round.failed.push(loser.name);
        self._discard(loser);
      });
      this._round.failed.forEach(function (name) { self._strike(name); });
      this._timers.clear(transport.limit);
      this._endRound();
      if (this._current && this._current.name !== transport.name) this.status.reason = transport.name + " works again";
      this._leave();
      this._adopt(transport, open);
      this._say("open", transport.name);
    },

    _adopt: function (transport, open) {
      var self = this;
      this._timers.clear("retry");
      this._current = transport;
      this._open = open;
      this._lasted = false;
      this._timers.set("lasted", SHORT, function () { self._lasted = true; });
      this._worked[transport.name] = true;
      this.status.heartbeat = open.heartbeat || HEARTBEAT;
      this._remember(transport.name);
      this._planUpgrade();
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

    /** What is planned stays planned when a connection takes the place of another. */
    _planUpgrade: function () {
      var self = this, waits = this._settings.upgradeAfter, better = this._better();
      // One that had worked here was probably just down for a moment: no need to wait for what was planned without it.
      var soon = better.some(function (name) { return self._worked[name] && !self._isDemoted(name); });
      var wait = waits[Math.min(this._upgrades, waits.length - 1)], plan = soon ? "return" : "upgrade";
      if (!better.length) {
        this._timers.clear("upgrade");
        this._timers.clear("return");
      }
      if (!better.length || !waits.length || this._timers.has(plan)) return;
      this._timers.set(plan, soon ? Math.min(SOON, wait) : wait, function () {
        if (soon) self._worked = {};
        else self._upgrades++;
        if (self._current) self._race(self._better());
      });
    },

    _better: function () {
      return this._names.slice(0, this._names.indexOf(this._current.name));
    },

    // A connection

    _receive: function (transport, message) {
      if (transport !== this._current && message.control === "open") this._win(transport, message);
      if (transport !== this._current) return; // before its `open`; or the page has closed it on hearing of that
      this._heard();
      if (!message.control) this._take(message);
      else if (CONTROLS[message.control]) CONTROLS[message.control].call(this, message);
    },

    _take: function (message) {
      var before = this.cursor;
      if (!isNews(message.id, before)) return;
      this.cursor = message.id;
      this.onevent({kind: "message", message: message, before: before});
    },

    /** Told also when it is where it was: other tabs shall know that this one lives. */
    _moveTo: function (named) {
      var before = this.cursor;
      this.cursor = moved(before, named);
      if (!named || !sameEpoch(named, this.cursor)) return;
      this._confirmed = true;
      this.onevent({kind: "cursor", cursor: this.cursor, before: before});
    },

    _patience: function () {
      var open = this._open, lifetime = open.lifetime ? open.lifetime + SLACK : Infinity;
      return 1000 * Math.min(2 * (open.heartbeat || HEARTBEAT), lifetime);
    },

    _heard: function () {
      var self = this, current = this._current;
      this._heardAt = this._env.now();
      if (this._lasted) {
        this._strikes[current.name] = 0;
        if (current.name === this._names[0]) this._upgrades = 0;
      }
      this._timers.set("watchdog", this._patience(), function () {
        self._strike(current.name);
        self._lost(current, current.name + " fell silent");
      });
    },

    /** A connection has ended, or is given up. */
    _lost: function (transport, why, refusal) {
      var round = this._round, at = round.racing.indexOf(transport);
      this._discard(transport);
      if (refusal) {
        this.onevent({kind: "refused", reason: why, refusal: refusal});
        return;
      }
      this.status.reason = why;
      if (at < 0) {
        this._ended();
      } else {
        round.racing.splice(at, 1);
        round.failed.push(transport.name);
        if (round.waiting.length) this._next();
        else if (!round.racing.length) this._roundFailed();
      }
    },

    _ended: function () {
      var name = this._current.name;
      this._leave();
      if (!this._lasted) this._strike(name);
      // A try of better ones may take long to fail. Where all are tried, one of them will do.
      if (this._round.racing.length && this._round.names.length === this._names.length) this._say("connecting", null);
      else this._comeBack();
    },

    _roundFailed: function () {
      if (this._current) this._planUpgrade();
      else if (!this._timers.has("retry")) this._comeBack();
    },

    _comeBack: function () {
      var self = this;
      this._timers.set("retry", backoff(this._settings, this._failures++), function () { self._connect(); });
      this._say("waiting", null);
    },

    // The winner is remembered, for a while and not for ever: networks change

    _remember: function (name) {
      this._last = name;
      if (name === this._remembered()) return; // else it would be for ever, for who opens pages often
      try {
        this._env.storage.setItem(MEMORY, name + " " + this._env.now());
      } catch (error) {
        // full, forbidden or missing: it is a matter of seconds
      }
    },

    _remembered: function () {
      try {
        var parts = this._env.storage.getItem(MEMORY).split(" ");
        var age = this._env.now() - parts[1];
        return age >= 0 && age < this._settings.rememberFor ? parts[0] : null;
      } catch (error) {
        return null;
      }
    }
  };

  var CONTROLS = {
    open: function (message) { this._moveTo(message.cursor); },
    ping: function (message) { this._moveTo(message.cursor); },

    reset: function (message) {
      this.cursor = message.cursor;
      this._confirmed = true;
      this.onevent({kind: "reset", message: message});
    },

    /** Its time is up. For the page nothing changes, unless the next round fails. */
    rotate: function (message) {
      var self = this;
      this._moveTo(message.cursor);
      this._leave();
      this._timers.set("retry", message.retry, function () { self._race(self._order()); });
    }
  };

  /* --- Shared: one line for all tabs ---------------------------------------------------------------------------
   *
   * Browsers open six connections per host for all tabs together (HTTP/1.1). So tabs with the same URL and token have
   * one line: the leader, who holds the lock, posts its events to the others. They need not trust it to be in step:
   * every event says where the line stood before, and who stands earlier than that asks the leader to go back there.
   * That is all there is to a change of leader, to a tab that comes late, and to one that was frozen.
   *
   * Also posted:
   *
   *     {kind: "hello", cursor}     who leads? I stand here ("" from now)
   *     {kind: "leader", cursor, status}     I do, the line stands here; at least once in a heartbeat
   */

  function Shared(line, settings, name, position) {
    this.onevent = nothing;
    this._line = line;
    this._env = settings.env;
    this._settings = settings;
    this._name = "pushcompat " + name;
    this._position = position; // where this tab stands
    this._timers = new Timers(settings.env);
    this._heartbeat = HEARTBEAT;
    this._leading = false;
    this._stopped = false;
    this._release = nothing; // gives the lock back
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
        this._lead(); // of itself alone
        return;
      }
      this._channel.onmessage = function (event) { self._hear(event.data); };
      this._request();
      this._greet();
      // A leader that lives answers at once.
      this._timers.set("silence", this._settings.stagger, function () { self._steal(); });
    },

    stop: function () {
      this._stopped = true;
      this._timers.clearAll();
      this._line.stop();
      this._release();
      if (this._channel) this._channel.close();
    },

    wake: function (networkChanged) {
      if (this._leading) this._line.wake(networkChanged);
    },

    _post: function (event) {
      if (this._channel) this._channel.postMessage(event);
    },

    // The lock

    _request: function () {
      var withdrawal = new root.AbortController();
      this._release = function () { withdrawal.abort(); };
      this._hold({signal: withdrawal.signal});
    },

    _steal: function () {
      this._release();
      this._hold({steal: true});
    },

    _hold: function (options) {
      var self = this, mine = {};
      this._mine = mine; // of several requests the last one counts
      function granted() {
        if (self._stopped || self._mine !== mine) return undefined;
        var held = new root.Promise(function (resolve) { self._release = resolve; });
        self._lead();
        return held;
      }
      function refused(error) {
        if (self._stopped || self._mine !== mine) return;
        if (error.name !== "AbortError") self._lead(); // no locks for this page: it leads itself alone
        else self._follow();
      }
      this._env.locks.request(this._name, options, granted).then(nothing, refused);
    },

    _lead: function () {
      var self = this;
      this._leading = true;
      this._timers.clearAll();
      this._line.cursor = this._position();
      this._line.onevent = function (event) {
        self._post(event);
        self._take(event);
      };
      this._beat();
      this._line.start();
    },

    /** The lock was stolen, since this tab was silent for too long: back into the queue. */
    _follow: function () {
      this._leading = false;
      this._line.stop();
      this._timers.clearAll();
      this._request();
      this._watch();
    },

    _beat: function () {
      var self = this;
      this._post({kind: "leader", cursor: this._line.cursor, status: this._line.status});
      this._timers.set("beat", 1000 * this._line.status.heartbeat, function () { self._beat(); });
    },

    // What other tabs say

    _hear: function (event) {
      if (this._leading) {
        if (event.kind === "hello") this._answer(event.cursor);
        return;
      }
      if (event.kind === "hello") return;
      if (event.kind === "leader") this._heartbeat = event.status.heartbeat;
      this._watch();
      if (event.kind === "leader") this._recognise(event);
      else this._take(event);
    },

    /** Passes an event on, unless there is something between it and where this tab stands. */
    _take: function (event) {
      var position = this._position(), from = event.before;
      if (from === "") from = event.cursor; // what was before is not known
      if (!isBehind(position, from)) this.onevent(event);
      else if (this._leading) this._line.rewind(position);
      else this._greet();
    },

    _answer: function (cursor) {
      if (isBehind(cursor, this._line.cursor)) this._line.rewind(cursor);
      this._beat();
    },

    _recognise: function (event) {
      if (!this._position() && event.cursor) this.onevent({kind: "cursor", cursor: event.cursor, before: ""});
      if (isBehind(this._position(), event.cursor)) this._greet();
      this.onevent(event.status);
    },

    /** Not more than once in a second: whoever is behind hears many events before he is answered. */
    _greet: function () {
      var self = this;
      this._again = this._timers.has("greeting");
      if (this._again) return;
      this._post({kind: "hello", cursor: this._position()});
      this._timers.set("greeting", 1000, function () {
        if (self._again) self._greet();
      });
    },

    _watch: function () {
      var self = this, patience = 1000 * this._heartbeat * (2 + this._env.random() / 2); // not all at once
      this._timers.set("silence", patience, function () { self._steal(); });
    }
  };

  /** Whether somebody who stands at `cursor` would miss something of a line that stands at `place`. */
  function isBehind(cursor, place) {
    return !!cursor && !!place && isNews(place, cursor);
  }

  /* --- Subscription: what the page has --------------------------------------------------------------------------- */

  function Subscription(url, options) {
    var parts = /^([^?#]*\/)([^\/?#]+)(\?[^#]*)?(#|$)/.exec(absolute(url, options.env.location));
    if (!parts) throw new Error("PushCompat: use a URL like /channels/chat, not " + url);
    this.state = "connecting";
    this.transport = null;
    this.cursor = options.cursor || "";
    this.channels = decodeURIComponent(parts[2]).split(",");
    this._path = parts[1];
    this._query = parts[3] ? parts[3] + "&" : "?";
    this._options = options;
    this._env = options.env;
    this._timers = new Timers(options.env);
    this._refusals = 0; // of tokens, in a row
    this._pending = []; // calls that wait for their turn
    this._source = null;
    this._turn = 0; // counts stops, so that a token that comes late is known
    this._paused = this._over = false;
    this._listen("addEventListener");
    this._start();
  }

  Subscription.prototype = {
    add: function () {
      var names = this.channels.concat(Array.prototype.slice.call(arguments));
      this._change(names.filter(function (name, i) { return names.indexOf(name) === i; }));
    },

    remove: function () {
      var names = Array.prototype.slice.call(arguments);
      this._change(this.channels.filter(function (name) { return names.indexOf(name) < 0; }));
    },

    close: function () {
      this._finish("closed by the page");
    },

    _finish: function (reason) {
      this._over = true;
      this._listen("removeEventListener");
      this._pending = [];
      this._end("closed", reason);
    },

    /** The old set of channels ends before the new one begins: what one has seen says nothing of what the other has. */
    _change: function (channels) {
      var changed = channels.length !== this.channels.length;
      this.channels = channels;
      if (this._over || this._paused || !changed) return;
      if (channels.length) this._restart();
      else this._end("closed", "no channels are left");
    },

    _restart: function () {
      this._stop();
      this._start();
    },

    _stop: function () {
      this._turn++;
      this._timers.clear("token");
      if (this._source) this._source.stop();
      this._source = null;
    },

    _end: function (state, reason) {
      this._stop();
      this._changeState({state: state, transport: null, reason: reason});
    },

    _start: function () {
      var turn = this._turn;
      if (this.state !== "open") this._changeState({state: "connecting", transport: null, reason: null});
      if (turn === this._turn) this._askToken(); // else the page has thought better of it
    },

    _open: function (token) {
      var self = this, options = this._options, base = this._path + this.channels.join(",") + this._query;
      if (token) base += "token=" + encodeURIComponent(token) + "&";
      var source = new Line(options, base, this.cursor);
      // From the earliest on it is alone: others would not be told of what is gone by then.
      if (options.shareTabs && this.cursor !== EARLIEST && Shared.usable(this._env)) {
        source = new Shared(source, options, options.transports + " " + base, function () { return self.cursor; });
      }
      this._source = source;
      source.onevent = function (event) { EVENTS[event.kind].call(self, event); };
      source.start();
    },

    _changeState: function (event) {
      if (this.state === event.state && this.transport === event.transport) return;
      this.state = event.state;
      this.transport = event.transport;
      this._run("onState", {state: event.state, transport: event.transport, reason: event.reason});
    },

    // Tokens

    /** A token that was refused has probably expired: the first is replaced at once, the next ones with backoff. */
    _renewToken: function (reason) {
      var self = this, refusals = this._refusals++;
      this._stop();
      this._timers.set("token", refusals && backoff(this._options, refusals), function () { self._start(); });
      if (refusals) this._changeState({state: "waiting", transport: null, reason: reason});
    },

    _askToken: function () {
      var self = this, turn = this._turn, token = this._options.token;
      function isAsked() { return turn === self._turn && !self._source; } // it may come late, or twice
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
    },

    // Callbacks

    /** Calls back in order, each not before a random moment within the spread that the server asks for. */
    _call: function (name, message) {
      var self = this, call = {name: name, message: message, ready: !message.spread};
      this._pending.push(call);
      if (message.spread) {
        this._env.setTimeout(function () {
          call.ready = true;
          self._callPending();
        }, this._env.random() * message.spread);
      }
      this._callPending();
    },

    _callPending: function () {
      while (this._pending.length && this._pending[0].ready) {
        var call = this._pending.shift();
        this._run(call.name, call.message);
      }
    },

    _run: function (name, argument) {
      try {
        if (this._options[name]) this._options[name](argument);
      } catch (error) {
        report(this._env, error);
      }
    },

    // The page's life

    _listen: function (method) {
      var self = this;
      [this._env.page, this._env.document].forEach(function (target) {
        for (var name in LIFE) {
          if (target && target[method]) target[method](name, self, false);
        }
      });
    },

    /** Called by the browser: a subscription is its own event listener. */
    handleEvent: function (event) {
      LIFE[event.type].call(this, event);
    },

    /** Gives everything up: connections, locks and channels keep a page out of the back-forward cache. */
    _pause: function () {
      this._paused = true;
      this._end("waiting", "the page was left");
    },

    _resume: function () {
      if (this._paused && this.channels.length) this._start();
      this._paused = false;
    },

    _wake: function (event) {
      if (this._source) this._source.wake(event.type === "online");
    }
  };

  var LIFE = {
    pagehide: Subscription.prototype._pause,
    freeze: Subscription.prototype._pause,
    pageshow: Subscription.prototype._resume,
    resume: Subscription.prototype._resume,
    online: Subscription.prototype._wake,
    visibilitychange: Subscription.prototype._wake
  };

  var EVENTS = {
    message: function (event) {
      if (!isNews(event.message.id, this.cursor)) return;
      this.cursor = event.message.id;
      this._call("onMessage", event.message);
    },

    cursor: function (event) {
      this.cursor = moved(this.cursor, event.cursor);
    },

    reset: function (event) {
      if (!isNews(event.message.cursor, this.cursor)) return; // another tab's: this one has missed nothing
      this.cursor = event.message.cursor;
      this._call("onReset", event.message);
    },

    state: function (event) {
      if (event.state === "open") this._refusals = 0;
      this._changeState(event);
    },

    refused: function (event) {
      if (event.refusal === "token" && typeof this._options.token === "function") this._renewToken(event.reason);
      else this._finish(event.reason);
    }
  };

  /** What the page's own code threw goes where its errors go, and stops nothing here. */
  function report(env, error) {
    env.setTimeout(function () { throw error; }, 0);
  }

  function absolute(url, location) {
    url = url.replace(/^ws(s?:)/i, "http$1");
    if (/^https?:/i.test(url) || !location) return url;
    if (/^\/\//.test(url)) return location.protocol + url;
    if (!/^\//.test(url)) url = location.pathname.replace(/[^\/]*$/, url);
    return location.protocol + "//" + location.host + url;
  }

  function subscribe(url, options) {
    var settings = fill(fill({}, options), DEFAULTS);
    settings.env = environment(settings.env);
    return new Subscription(url, settings);
  }

  /* --- UpdateCheckSocket: the class of 2009, over all of this ------------------------------------------------------
   *
   * Shows what comes in `statusElement`, and calls back for each UPDATED, and when updates were missed. `resource` is a
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
    /** For the NOOPs that kept NAT from forgetting the connection: the server's heartbeat does that now. */
    send: nothing,

    close: function () {
      this._subscription.close();
    }
  };

  return {subscribe: subscribe, UpdateCheckSocket: UpdateCheckSocket};
}));
