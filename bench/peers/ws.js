// What one writes with `ws` alone: channels, no history, no acknowledgement that anybody has a message.
// node ws.js PORT     WebSockets at /subscribe?id=CHANNEL, publishes are POST /publish?id=CHANNEL
"use strict";
const http = require("http");
const { WebSocketServer } = require("ws");

const channels = new Map();
const channelOf = (request) => request.url.slice(request.url.indexOf("id=") + 3);

const server = http.createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const text = Buffer.concat(parts).toString();
    for (const socket of channels.get(channelOf(request)) || []) socket.send(text);
    response.end("{}");
  });
});

new WebSocketServer({ server, perMessageDeflate: false }).on("connection", (socket, request) => {
  const id = channelOf(request);
  if (!channels.has(id)) channels.set(id, new Set());
  channels.get(id).add(socket);
  socket.on("error", () => {}); // "close" follows
  socket.on("close", () => channels.get(id).delete(socket));
});

server.keepAliveTimeout = 0; // publishers stay connected
server.listen(Number(process.argv[2]), "127.0.0.1", 4096);
