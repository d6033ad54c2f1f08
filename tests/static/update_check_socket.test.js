"use strict";

const {assert, cursor, envelope, scenario} = require("./world.js");
const {windowOf} = require("./es5.js");

/** A page of 2009: what it shows, and how often it was called back. */
function page(world, more) {
  const tab = world.tab(), window = windowOf(tab, more), status = {textContent: ""}, seen = {status, updates: 0};
  seen.socket = new window.UpdateCheckSocket("push.example", 8888, "/channels/chat", status, () => seen.updates++);
  return seen;
}

scenario("a page of 2009 is called back for each UPDATED, and shows what comes", async (world) => {
  const seen = page(world);
  assert.equal(world.last("websocket").url.split("?")[0], "wss://push.example:8888/channels/chat");
  const connection = world.last("websocket").works(cursor(1));
  assert.equal(seen.status.textContent, "open (websocket)");
  connection.tell(envelope(2, {data: "UPDATED"}));
  assert.deepEqual([seen.status.textContent, seen.updates], ["UPDATED", 1]);
  connection.tell(envelope(3, {data: "hello"}), envelope(4, {data: {n: 1}}));
  assert.deepEqual([seen.status.textContent, seen.updates], ["{\"n\":1}", 1]);
  connection.tell(envelope(5, {data: "hello"}), envelope(6, {data: "UPDATED"}));
  assert.equal(seen.updates, 2);
});

scenario("its NOOPs are allowed, and go nowhere", async (world) => {
  const {socket} = page(world);
  socket.send("NOOP");
  world.last("websocket").works(cursor(1));
  socket.send("NOOP");
});

scenario("where WebSocket does not work it is called back all the same", async (world) => {
  const seen = page(world);
  await world.pass(5000);
  world.last("longpoll").works(cursor(1)).tell(envelope(2, {data: "UPDATED"}));
  assert.deepEqual([seen.status.textContent, seen.updates], ["UPDATED", 1]);
});

scenario("it is also called back when updates were missed", async (world) => {
  const seen = page(world);
  world.last("websocket").works(cursor(1)).reset(cursor(9));
  assert.equal(seen.updates, 1);
});

scenario("on a plain http: page it connects plainly, and a resource without its slash will do", async (world) => {
  const window = windowOf(world.tab(), {location: {protocol: "http:", host: "app.example", pathname: "/"}});
  new window.UpdateCheckSocket("push.example", 80, "channels/chat", null, null);
  const connection = world.last("websocket");
  assert.equal(new URL(connection.url).href.split("?")[0], "ws://push.example/channels/chat");
  connection.works(cursor(1)).tell(envelope(2, {data: "UPDATED"}));
});

scenario("it can be closed", async (world) => {
  const {socket, status} = page(world);
  world.last("websocket").works(cursor(1));
  socket.close();
  assert.deepEqual([world.live, status.textContent], [[], "closed"]);
});
