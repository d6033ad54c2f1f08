#!/bin/sh
# nodejs-websocket 1.7.2 (npm): a character whose bytes come in two fragments of a message arrives as two replacement
# characters.
#
# The protocol lets a sender, and any proxy, divide a message at any byte; only the whole must be UTF-8. This package decodes
# each fragment by itself. Messages in one frame, and ASCII, are not affected. ws 8.23.0 decodes the whole. Until it is mended:
# another package, or JSON that escapes all but ASCII.
#
# Needs Node.js 20 and npm. Takes about 5 s. Exit code 0: as described; 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --silent --no-audit --no-fund nodejs-websocket@1.7.2 ws@8.23.0

cat >show.mjs <<'JS'
import { createHash } from "node:crypto";
import { createServer } from "node:http";

import { connect } from "nodejs-websocket";
import { WebSocket } from "ws";

const text = Buffer.from("naïve");
const close = [0x88, 2, 3, 0xe8]; // 1000
const frames = {
  "/whole": Buffer.from([0x81, text.length, ...text, ...close]),
  "/between-characters": Buffer.from([0x01, 2, ...text.subarray(0, 2), 0x80, 4, ...text.subarray(2), ...close]),
  "/within-a-character": Buffer.from([0x01, 3, ...text.subarray(0, 3), 0x80, 3, ...text.subarray(3), ...close]),
};
const server = createServer();
server.on("upgrade", (request, socket) => {
  const key = request.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  const accept = createHash("sha1").update(key).digest("base64");
  const head = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"];
  socket.write([...head, `Sec-WebSocket-Accept: ${accept}`, "\r\n"].join("\r\n"));
  socket.write(frames[request.url]);
  socket.on("data", () => socket.end()); // the client's close
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const url = `ws://127.0.0.1:${server.address().port}`;

for (const path in frames) {
  const seen = await new Promise((resolve) => {
    const client = connect(url + path);
    client.on("text", resolve);
    client.on("error", () => {});
  });
  console.log("nodejs-websocket", path, JSON.stringify(seen));
  const other = await new Promise((resolve) => new WebSocket(url + path).on("message", (data) => resolve(String(data))));
  console.log("ws", path, JSON.stringify(other));
}
process.exit(0);
JS
timeout 60 node show.mjs | tee seen
cat >expected <<'TXT'
nodejs-websocket /whole "naïve"
ws /whole "naïve"
nodejs-websocket /between-characters "naïve"
ws /between-characters "naïve"
nodejs-websocket /within-a-character "na��ve"
ws /within-a-character "naïve"
TXT
diff expected seen
