#!/bin/sh
# parse-sse 0.1.0 (npm): a message that was cut off by the end of the stream is delivered as if it were complete, and one
# whose lines end with CR LF becomes two where the network divides it between the two.
#
# The format says that what no empty line has ended is discarded: the client resumes from the id before, and gets the
# whole of it. Here a proxy's time-out in the middle of a message of two lines gives a program half of it, and its id, so
# that the other half never comes. Until it is mended: messages of one line, lines that end with LF, and eventsource-parser.
#
# Needs Node.js 20 and npm. Takes about 5 s. Exit code 0: as described; 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --silent --no-audit --no-fund parse-sse@0.1.0 eventsource-parser@3.1.1

cat >show.mjs <<'JS'
import { EventSourceParserStream } from "eventsource-parser/stream";
import { parseServerSentEvents } from "parse-sse";

const streams = {
  "cut off": ["id: 1\ndata: whole\n\n", "id: 2\ndata: first line\n"],
  "CR LF divided": ["id: 1\r\ndata: first line\r", "\ndata: second line\r\n\r\n"],
};
for (const [name, pieces] of Object.entries(streams)) {
  const response = () => {
    const bytes = ReadableStream.from(pieces.map((piece) => new TextEncoder().encode(piece)));
    return new Response(bytes, { headers: { "Content-Type": "text/event-stream" } });
  };
  const seen = [];
  for await (const event of parseServerSentEvents(response())) seen.push(event.data);
  console.log(`parse-sse, ${name}:`, JSON.stringify(seen));

  const parsed = [];
  const text = response().body.pipeThrough(new TextDecoderStream());
  for await (const event of text.pipeThrough(new EventSourceParserStream())) parsed.push(event.data);
  console.log(`eventsource-parser, ${name}:`, JSON.stringify(parsed));
}
JS
timeout 60 node show.mjs | tee seen
cat >expected <<'TXT'
parse-sse, cut off: ["whole","first line"]
eventsource-parser, cut off: ["whole"]
parse-sse, CR LF divided: ["first line","second line"]
eventsource-parser, CR LF divided: ["first line\nsecond line"]
TXT
diff expected seen
