#!/bin/sh
# @sentool/fetch-event-source 0.6.0 (npm): what a program gets depends on where the network divides the stream.
#
# The same bytes are correct in one piece. In pieces, which is how every stream arrives: an event that is divided within a
# line is reported first as an empty one, which looks like a message; and where a piece ends before the empty line that
# ends an event, the event is lost: an empty report is all that comes. No error is raised. Of a message of several lines
# the last one arrives, in one piece too. Until it is mended: another package. undici's EventSource and eventsource-parser
# do not care how the stream is divided.
#
# Needs Node.js 20 and npm. Takes about 5 s. Exit code 0: as described; 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --silent --no-audit --no-fund @sentool/fetch-event-source@0.6.0

cat >show.mjs <<'JS'
import { createServer } from "node:http";
import { setTimeout as pause } from "node:timers/promises";

globalThis.window = globalThis; // the package is for browsers: it looks whether the page is visible
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
const { fetchEventSource } = await import("@sentool/fetch-event-source");

const streams = {
  "/whole": ["data: first\n\ndata: second\n\n"],
  "/within-a-line": ["data: fi", "rst\n\ndata: second\n\n"],
  "/before-the-empty-line": ["data: first\n", "\ndata: second\n\n"],
  "/several-lines": ["data: first line\ndata: second line\n\n"],
};
const server = createServer(async (request, response) => {
  response.writeHead(200, { "Content-Type": "text/event-stream" });
  for (const piece of streams[request.url]) {
    response.write(piece);
    await pause(200);
  }
  response.end();
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
for (const name in streams) {
  const messages = [];
  await fetchEventSource(`http://127.0.0.1:${server.address().port}${name}`, {
    onmessage: (event) => messages.push(event.data),
  });
  console.log(name, JSON.stringify(messages));
}
process.exit(0);
JS
timeout 60 node show.mjs | tee seen
cat >expected <<'TXT'
/whole ["first","second"]
/within-a-line [null,"first","second"]
/before-the-empty-line [null,"second"]
/several-lines ["second line"]
TXT
diff expected seen
