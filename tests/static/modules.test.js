"use strict";

const {PushCompat, assert, scenario, test} = require("./world.js");
const {windowOf} = require("./es5.js");

const API = ["UpdateCheckSocket", "subscribe"];

test("CommonJS requires it, and gets nothing on the global", () => {
  assert.deepEqual([Object.keys(PushCompat).sort(), global.PushCompat], [API, undefined]);
});

scenario("a script tag makes it global", async (world) => {
  const window = windowOf(world.tab());
  assert.deepEqual(Object.keys(window.PushCompat).sort(), API);
  assert.equal(window.UpdateCheckSocket, window.PushCompat.UpdateCheckSocket);
});

scenario("an AMD loader is given it", async (world) => {
  const defined = [], define = Object.assign((names, make) => defined.push(make()), {amd: {}});
  const window = windowOf(world.tab(), {define});
  assert.deepEqual(defined, [window.PushCompat]);
});
