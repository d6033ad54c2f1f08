#!/bin/sh
# better-sse 0.16.1 (npm) with a serializer of one's own: of a text with line breaks only the first line arrives, and a
# blank at its start is lost.
#
# The option "serializer" replaces JSON, which has no line breaks, for servers that send plain text. Line breaks in what
# it returns are written as they are, with one "data:" before all of them: the lines after the first are fields with
# unknown names, which clients ignore; an empty line ends the event. "data:" is written without the blank that clients
# take away, so they take the text's own. Until it is mended: return the text with its line breaks replaced by "\ndata:"
# and a blank before it.
#
# Needs Node.js 20 and npm. Takes about 5 s. Exit code 0: as described; 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --silent --no-audit --no-fund better-sse@0.16.1 eventsource-parser@3.1.1

cat >show.mjs <<'JS'
import { createServer } from "node:http";

import { createSession } from "better-sse";
import { EventSourceParserStream } from "eventsource-parser/stream";

const texts = ["one line", "first line\nsecond line", "a paragraph\n\nanother", " indented"];
const server = createServer(async (request, response) => {
  const session = await createSession(request, response, { serializer: String });
  for (const text of texts) session.push(text);
  session.push("end", "end");
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const response = await fetch(`http://127.0.0.1:${server.address().port}`, { headers: { Accept: "text/event-stream" } });
const events = response.body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
let number = 0;
for await (const event of events) {
  if (event.event === "end") break;
  console.log(JSON.stringify(texts[number++]), "arrives as", JSON.stringify(event.data));
}
process.exit(0);
JS
timeout 60 node show.mjs | tee seen
cat >expected <<'TXT'
"one line" arrives as "one line"
"first line\nsecond line" arrives as "first line"
"a paragraph\n\nanother" arrives as "a paragraph"
" indented" arrives as "indented"
TXT
diff expected seen
