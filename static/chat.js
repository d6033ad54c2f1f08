/* The demo's chat. The page is complete without this; with it, it follows the channel and fetches what is new. */
(function () {
  "use strict";

  var TRANSPORTS = {websocket: "WebSocket", eventsource: "Server-Sent Events", longpoll: "Long-poll"};
  var STATES = {
    connecting: "Connecting …", open: "Live by ", waiting: "Disconnected, retrying", closed: "Not connected"
  };
  var COLORS = 6; // in chat.css
  var MOST_CHANGES = 6;

  function byId(id) {
    return document.getElementById(id);
  }

  function each(list, action) {
    Array.prototype.forEach.call(list, action);
  }

  /** Text is only ever set as text: it cannot become markup. */
  function element(name, text) {
    var made = document.createElement(name);
    made.textContent = text;
    return made;
  }

  /** Calls back with the status (0 if there was no response) and the parsed response. */
  function request(method, url, body, callback) {
    var xhr = new XMLHttpRequest();
    xhr.open(method, url, true);
    xhr.setRequestHeader("Accept", "application/json");
    if (body) xhr.setRequestHeader("Content-Type", "application/x-www-form-urlencoded");
    xhr.timeout = 20000;
    xhr.onloadend = function () {
      var answer;
      try {
        answer = JSON.parse(xhr.responseText);
      } catch (error) {
        answer = null; // no response, or a gateway's page
      }
      callback(xhr.status, answer);
    };
    xhr.send(body);
  }

  /* --- The newest comments --- */

  var comments = byId("comments"), fetching = false, again = false;

  /** Signals that come during a request cause one more request, however many they are. */
  function refetch() {
    again = fetching;
    if (fetching) return;
    fetching = true;
    request("GET", document.body.getAttribute("data-comments"), null, function (status, answer) {
      fetching = false;
      if (status === 200 && answer) show(answer.comments);
      else setTimeout(refetch, 2000 + 3000 * Math.random());
      if (again) refetch();
    });
  }

  /** Only new comments are added, so that nothing flickers and screen readers read those only. */
  function show(newest) {
    var ids = newest.map(function (comment) { return "comment-" + comment.id; });
    each(comments.querySelectorAll("li"), function (item) {
      if (ids.indexOf(item.id) < 0) comments.removeChild(item);
    });
    newest.forEach(function (comment, i) {
      if (!byId(ids[i])) comments.appendChild(draw(comment, ids[i]));
    });
  }

  function draw(comment, id) {
    var item = document.createElement("li"), name = element("b", comment.name);
    var time = document.createElement("time"), text = element("p", comment.text);
    item.id = id;
    item.className = "new";
    name.dir = text.dir = "auto";
    time.setAttribute("datetime", comment.time);
    [name, document.createTextNode(" "), time, text].forEach(function (part) { item.appendChild(part); });
    dress(item);
    return item;
  }

  /** Adds what depends on the browser: the local time, and the colour of a name. */
  function dress(item) {
    var name = item.querySelector("b").textContent, time = item.querySelector("time"), sum = 0, i;
    for (i = 0; i < name.length; i++) sum += name.charCodeAt(i);
    item.setAttribute("data-color", sum % COLORS);
    item.setAttribute("data-initial", /^(?:[\ud800-\udbff][\udc00-\udfff]|[^])/.exec(name)[0].toUpperCase());
    time.textContent = shortTime(new Date(time.getAttribute("datetime")));
    time.title = new Date(time.getAttribute("datetime")).toLocaleString();
  }

  function shortTime(date) {
    var clock = date.toLocaleTimeString([], {hour: "2-digit", minute: "2-digit"});
    if (date.toDateString() === new Date().toDateString()) return clock;
    return date.toLocaleDateString([], {day: "numeric", month: "short"}) + ", " + clock;
  }

  /* --- Writing one --- */

  var form = byId("form"), name = byId("name"), text = byId("text");

  form.addEventListener("submit", function (event) {
    event.preventDefault();
    if (text.readOnly) return; // being sent
    text.readOnly = true;
    var body = "name=" + encodeURIComponent(name.value) + "&text=" + encodeURIComponent(text.value);
    request("POST", document.body.getAttribute("data-comments"), body, function (status, answer) {
      var sent = status === 204;
      text.readOnly = false;
      text.focus();
      if (sent) text.value = "";
      if (sent) refetch(); // the signal comes, too, unless every transport is disabled
      var why = answer && answer.detail || "the server cannot be reached";
      byId("error").textContent = sent ? "" : "Not sent: " + why + ".";
    });
  }, false);

  text.addEventListener("keydown", function (event) {
    var writing = event.isComposing || event.keyCode === 229; // Enter chooses a word of an input method
    if (event.key !== "Enter" || event.shiftKey || writing) return;
    event.preventDefault();
    byId("send").click();
  }, false);

  /* --- The connection --- */

  var boxes = document.querySelectorAll("fieldset input"), subscription = null, cursor = "", turn = 0, opened = false;

  /** Follows the channel over the transports that are enabled, from the current cursor. */
  function connect() {
    var mine = ++turn; // events of an earlier subscription are ignored
    var allowed = Array.prototype.filter.call(boxes, function (box) { return box.checked; });
    if (subscription) {
      cursor = subscription.cursor;
      subscription.close();
    }
    subscription = null;
    tell({state: allowed.length ? "connecting" : "closed", transport: null, reason: null});
    if (allowed.length) subscription = PushCompat.subscribe(document.body.getAttribute("data-channel"), {
      cursor: cursor,
      transports: allowed.map(function (box) { return box.value; }),
      shareTabs: allowed.length === boxes.length, // other tabs may use what is disabled in this one
      rememberFor: 0, // a transport that is enabled again is used at once
      onMessage: refetch,
      onReset: refetch,
      onState: function (change) {
        if (mine === turn) tell(change);
      }
    });
  }

  function tell(change) {
    var status = byId("status"), label = STATES[change.state] + (TRANSPORTS[change.transport] || "");
    status.className = change.state;
    status.textContent = label;
    each(boxes, function (box) { box.parentNode.className = box.value === change.transport ? "current" : ""; });
    if (change.state !== "connecting" || change.reason) note(label, change.reason);
    if (change.state !== "open" || opened) return;
    opened = true;
    refetch(); // for comments between the page's response and the subscription; later ones come by its cursor
  }

  var changes = byId("changes"), lastReason = null;

  function note(what, reason) {
    var item = document.createElement("li"), line = element("span", what);
    if (reason && reason !== lastReason) line.appendChild(element("small", "because " + reason));
    lastReason = reason;
    item.appendChild(element("time", new Date().toLocaleTimeString()));
    item.appendChild(line);
    changes.insertBefore(item, changes.firstChild);
    if (changes.childNodes.length > MOST_CHANGES) changes.removeChild(changes.lastChild);
  }

  each(boxes, function (box) {
    box.addEventListener("change", function () {
      note((box.checked ? "You enabled " : "You disabled ") + TRANSPORTS[box.value], null);
      connect();
    }, false);
  });

  each(comments.querySelectorAll("time"), function (time) { dress(time.parentNode); });
  byId("connection").hidden = false;
  byId("connection").open = !window.matchMedia || window.matchMedia("(min-width: 56rem)").matches;
  connect();
}());
