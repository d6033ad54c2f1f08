#!/bin/sh
# websocket 1.0.35 (npm), its W3C client: an empty text message is never delivered, and a close without a code is reported as
# a lost connection.
#
# The events are those of browsers in all else. A program that takes an empty message for a sign of life sees none, and
# one that reports 1006 as a network failure does so at each regular end. The package's other client class delivers empty
# messages; ws 8.23.0 and undici's WebSocket do both as browsers do. Until it is mended: messages that are not empty, closes
# with a code.
#
# Needs Node.js 20 and npm. Takes about 5 s. Exit code 0: as described; 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --silent --no-audit --no-fund websocket@1.0.35 ws@8.23.0

cat >show.mjs <<'JS'
import { createHash } from "node:crypto";
import { createServer } from "node:http";

import websocket from "websocket";
import { WebSocket } from "ws";

const frames = { "/": Buffer.from([0x81, 0, 0x81, 1, 0x78, 0x88, 0]) }; // an empty message, "x", a close without a code
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

for (const [name, Client] of Object.entries({ w3cwebsocket: websocket.w3cwebsocket, ws: WebSocket })) {
  const seen = [];
  await new Promise((resolve) => {
    const client = new Client(url + "/");
    client.onmessage = (event) => seen.push(event.data);
    client.onerror = () => {};
    client.onclose = (event) => resolve(seen.push(event.code));
  });
  console.log(`${name}:`, JSON.stringify(seen));
}
process.exit(0);
JS
timeout 60 node show.mjs | tee seen
cat >expected <<'TXT'
w3cwebsocket: ["x",1006]
ws: ["","x",1005]
TXT
diff expected seen
