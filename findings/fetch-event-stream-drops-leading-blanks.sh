#!/bin/sh
# fetch-event-stream 0.1.6 (npm): blanks at the start of a message are lost.
#
# The format says that one blank after the colon belongs to the field, and that all others belong to its value. This
# package takes all white space away, tabs too. A language model's answer that is sent token by token loses the blanks
# between its words, which are at the start of most tokens. The EventSource of browsers, undici's and eventsource-parser
# keep them. Until it is mended: send JSON, whose quotes protect them.
#
# Needs Node.js 20 and npm. Takes about 5 s. Exit code 0: as described; 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --silent --no-audit --no-fund fetch-event-stream@0.1.6 eventsource-parser@3.1.1

cat >show.mjs <<'JS'
import { createParser } from "eventsource-parser";
import { events } from "fetch-event-stream";

const text = ["One", " word", " at", "  a", "\ttime"].map((token) => `data: ${token}\n\n`).join("");
const tokens = [];
for await (const event of events(new Response(text, { headers: { "Content-Type": "text/event-stream" } })))
  tokens.push(event.data);
console.log("fetch-event-stream:", JSON.stringify(tokens.join("")));

const parsed = [];
createParser({ onEvent: (event) => parsed.push(event.data) }).feed(text);
console.log("eventsource-parser:", JSON.stringify(parsed.join("")));
JS
timeout 60 node show.mjs | tee seen
cat >expected <<'TXT'
fetch-event-stream: "Onewordatatime"
eventsource-parser: "One word at  a\ttime"
TXT
diff expected seen
