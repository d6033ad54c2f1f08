"use strict";

const fs = require("node:fs");
const path = require("node:path");
const vm = require("node:vm");
const zlib = require("node:zlib");

const acorn = require("acorn");
const uglify = require("uglify-js");
const walk = require("acorn-walk");

const {World, assert, cursor, envelope, test} = require("./world.js");
const {SOURCE, later, laterGlobals, windowOf} = require("./es5.js");

const MOST_BYTES = 10 * 1024; // one response, of one congestion window of ten packets
const GUARDED = ["AbortController", "Promise", "Symbol", "console", "fetch"]; // AbortController by a look for locks or fetch
const OF_BROWSERS = ["AbortController", "URL", "URLSearchParams", "fetch", "structuredClone", "queueMicrotask"];

function names(tree) {
  const found = {variables: new Set(), members: new Set()};
  walk.full(tree, (node) => {
    if (node.type === "Identifier") found.variables.add(node.name);
    if (node.type === "MemberExpression") found.members.add(node.property.name ?? node.property.value);
  });
  return found;
}

test("the client is ECMAScript 5, read as a script", () => {
  acorn.parse(SOURCE, {ecmaVersion: 5, sourceType: "script"});
});

test("it uses nothing of later libraries, but for what it has looked for", () => {
  const realm = vm.runInNewContext("this"), {variables, members} = names(acorn.parse(SOURCE, {ecmaVersion: 5}));
  const globals = new Set([...laterGlobals(realm), ...OF_BROWSERS]);
  const methods = new Set(later(realm).flatMap(({names}) => names));
  assert.deepEqual([...variables].filter((name) => globals.has(name)), []);
  assert.deepEqual([...members].filter((name) => globals.has(name)).sort(), GUARDED);
  assert.deepEqual([...members].filter((name) => methods.has(name)), []);
});

/** uglifyjs --no-module -c -m --mangle-props regex=/^_/: without the first it writes arrow functions. */
function minify(source) {
  return uglify.minify(source, {module: false, compress: true, mangle: {properties: {regex: /^_/}}}).code;
}

test("minified it is ECMAScript 5 still, and follows a channel", async () => {
  const code = minify(SOURCE), world = new World(), tab = world.tab(), seen = [];
  acorn.parse(code, {ecmaVersion: 5, sourceType: "script"});
  const {PushCompat} = windowOf(tab, {}, code);
  PushCompat.subscribe("/channels/chat", {onMessage: ({data}) => seen.push(data), onReset: () => seen.push("reset")});
  world.last("websocket").works(cursor(1)).tell(envelope(2)).reset(cursor(3)).rotate(cursor(3), 100);
  await world.untilNext();
  world.last("websocket").refuse(403, "not by this way");
  world.last("eventsource").works(cursor(3)).tell(envelope(4));
  ["pagehide", "pageshow"].forEach((name) => tab.happens(name));
  world.live[0].works(cursor(4)).tell(envelope(5));
  assert.deepEqual([seen, world.errors], [[2, "reset", 4, 5], []]);
});

test("minified and gzipped it is under 10 KiB, and as large as its documentation says", (context) => {
  const code = minify(SOURCE), kib = (bytes) => (bytes / 1024).toFixed(1);
  const gzipped = zlib.gzipSync(code, {level: 9}).length;
  context.diagnostic(`${code.length} bytes minified, ${gzipped} gzipped`);
  assert(gzipped < MOST_BYTES, `${gzipped} bytes`);
  const documentation = fs.readFileSync(path.join(__dirname, "../../docs/client.md"), "utf8");
  assert(documentation.includes(`${Math.round(code.length / 1024)} KiB minified, ${kib(gzipped)} KiB of that gzipped`));
});
