"use strict";

const {assert, cursor, envelope, scenario} = require("./world.js");
const {windowOf} = require("./es5.js");

for (const transport of ["websocket", "eventsource", "longpoll"]) {
  scenario(`${transport}: a browser with ECMAScript 5's library and no more can follow a channel`, async (world) => {
    const tab = world.tab(), {PushCompat, ...window} = windowOf(tab), seen = [];
    assert.deepEqual([window.Promise, window.Map, window.Symbol, window.globalThis], Array(4).fill(undefined));
    const subscription = PushCompat.subscribe("/channels/chat", {
      transports: [transport],
      token: (done) => done("t1"),
      onMessage: (message) => seen.push(message.data),
      onReset: () => seen.push("reset")
    });
    world.last(transport).works(cursor(1)).tell(envelope(2), envelope(3, {spread: 10})).end();
    await world.pass(1000);
    world.last(transport).works(cursor(3)).reset(cursor(5)).tell(envelope(6)).rotate(cursor(6), 100);
    await world.pass(1000);
    world.last(transport).works(cursor(6));
    subscription.add("news");
    tab.happens("pagehide");
    tab.happens("pageshow");
    await world.pass(100);
    world.last(transport).works(cursor(6)).tell(envelope(7)).refuse(403, "enough");
    assert.deepEqual(seen, [2, 3, "reset", 6, 7]);
  });
}

scenario("the three transports race in such a browser, and the winner is remembered", async (world) => {
  const tab = world.tab(), window = windowOf(tab);
  const subscription = window.PushCompat.subscribe("/channels/chat");
  await world.pass(5000);
  world.last("longpoll").works(cursor(1));
  assert.equal(subscription.transport, "longpoll");
  assert.match(world.storage.getItem("pushcompat.transport https://app.example"), /^longpoll \d+$/);
});

scenario("a page that may not even look at localStorage is served all the same", async (world) => {
  const tab = world.tab(), window = windowOf(tab);
  Object.defineProperty(window, "localStorage", {get: () => { throw new Error("SecurityError"); }});
  const subscription = window.PushCompat.subscribe("/channels/chat");
  world.last("websocket").works(cursor(1));
  assert.equal(subscription.state, "open");
});
