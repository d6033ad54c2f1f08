#!/bin/sh
# extended-eventsource 2.1.0 (npm): comments are reported as empty messages, and a message whose lines end with CR LF
# becomes two where the network divides it between the two.
#
# Servers send a comment every few seconds to keep a connection alive; each of them comes to "onmessage" with empty data,
# where JSON.parse fails. The EventSource of browsers and undici's do neither. Until it is mended: ignore messages without
# data, and servers whose lines end with LF.
#
# Needs Node.js 20 and npm. Takes about 8 s. Exit code 0: as described; 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --silent --no-audit --no-fund extended-eventsource@2.1.0 undici@7.30.2

cat >show.mjs <<'JS'
import { createServer } from "node:http";
import { setTimeout as pause } from "node:timers/promises";

import { EventSource as Extended } from "extended-eventsource";
import { EventSource as Undici } from "undici";

const streams = {
  "/comments": ["data: one\n\n", ": keep-alive\n\n", "data: two\n\n", ": keep-alive\n\n"],
  "/divided": ["data: first line\r", "\ndata: second line\r\n\r\n"],
};
const server = createServer(async (request, response) => {
  response.writeHead(200, { "Content-Type": "text/event-stream" });
  for (const piece of [...streams[request.url], "event: end\ndata: end\n\n"]) {
    response.write(piece);
    await pause(200);
  }
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
for (const path in streams)
  for (const [name, EventSource] of Object.entries({ "extended-eventsource": Extended, undici: Undici })) {
    const messages = [];
    const source = new EventSource(`http://127.0.0.1:${server.address().port}${path}`);
    source.addEventListener("message", (event) => messages.push(event.data));
    await new Promise((ended) => source.addEventListener("end", ended));
    source.close();
    console.log(name, path, JSON.stringify(messages));
  }
process.exit(0);
JS
timeout 60 node show.mjs 2>stderr | tee seen
cat >expected <<'TXT'
extended-eventsource /comments ["one","","two",""]
undici /comments ["one","two"]
extended-eventsource /divided ["first line","second line"]
undici /divided ["first line\nsecond line"]
TXT
diff expected seen
