// Feeds byte streams to eventsource-parser, for tests/sse/events/test_event_parsers.py.
// A line in:  a JSON list of streams, each a list of base64 chunks.
// A line out: for each stream {events: [[type, data, id]], retries, comments, errors}.
import { createInterface } from "node:readline";
import { createParser } from "eventsource-parser";

function parse(chunks) {
  const seen = { events: [], retries: [], comments: [], errors: [] };
  const parser = createParser({
    onEvent: ({ event, data, id }) => seen.events.push([event ?? "message", data, id ?? null]),
    onRetry: (milliseconds) => seen.retries.push(milliseconds),
    onComment: (text) => seen.comments.push(text),
    onError: (error) => seen.errors.push(error.message), // an unknown field, or a retry that is no number
  });
  const decoder = new TextDecoder("utf-8", { fatal: true });
  for (const chunk of chunks) {
    parser.feed(decoder.decode(Buffer.from(chunk, "base64"), { stream: true }));
  }
  return seen;
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(JSON.stringify(JSON.parse(line).map(parse)) + "\n");
}
