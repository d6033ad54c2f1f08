#!/bin/sh
# @azure/core-sse 2.3.0 (npm): the name of an event without data is given to the message after it.
#
# The format says that a block without data reports nothing, and that the name is forgotten with it. Here the name stays:
# a server that sends "event: ping" and an empty line to keep a connection alive turns the next message, which has no
# name, into a "ping", and a program that ignores pings loses it.
# Until it is mended: keep-alives as comments (": ping").
#
# Needs Node.js 20 and npm. Takes about 5 s. Exit code 0: as described; 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --silent --no-audit --no-fund @azure/core-sse@2.3.0 eventsource-parser@3.1.1

cat >show.mjs <<'JS'
import { createSseStream } from "@azure/core-sse";
import { createParser } from "eventsource-parser";

const text = "data: one\n\nevent: ping\n\ndata: two\n\ndata: three\n\n";
const seen = [];
for await (const { event, data } of createSseStream(new Response(text).body)) seen.push(`${event || "message"}=${data}`);
console.log("@azure/core-sse:", seen.join(" "));

const parsed = [];
createParser({ onEvent: ({ event, data }) => parsed.push(`${event || "message"}=${data}`) }).feed(text);
console.log("eventsource-parser:", parsed.join(" "));
JS
timeout 60 node show.mjs | tee seen
cat >expected <<'TXT'
@azure/core-sse: message=one ping=two message=three
eventsource-parser: message=one message=two message=three
TXT
diff expected seen
