// Node clients as a user would write them: `node clients.mjs NAME URL NAME URL …` prints one JSON line for each event
// of each of them. For tests/clients.
import { createRequire } from "node:module";

const TYPES = ["message", "heartbeat", "stream-reset", "update"];
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const require = createRequire(import.meta.url);

function listen(source, emit) {
  for (const type of TYPES) source.addEventListener(type, (event) => emit(event.type, event.data, event.lastEventId));
  source.addEventListener("error", () => {}); // without a listener, some of them print or throw
}

const eventsource = (version) => async (url, emit) => {
  const { EventSource } = await import(`eventsource-${version}`);
  listen(new EventSource(url), emit);
};

async function launchDarkly(url, emit) {
  const { EventSource } = require("launchdarkly-eventsource");
  // Without a time of its own, it takes that of Node's agent (from Node 19 on): five seconds of silence are its end.
  listen(new EventSource(url, { readTimeoutMillis: 60_000 }), emit);
}

async function polyfill(url, emit) {
  const { EventSourcePolyfill } = require("event-source-polyfill");
  listen(new EventSourcePolyfill(url), emit);
}

async function fetchEventSource(url, emit) {
  // A browser's library: it asks the window for its timers and the document whether it can be seen.
  globalThis.window = globalThis;
  globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
  const library = require("@microsoft/fetch-event-source");
  await library.fetchEventSource(url, {
    openWhenHidden: true,
    // A block without data is a message to it, too.
    onmessage: ({ event, data, id }) => data && emit(event || "message", data, id),
    // After a clean end it does not come back unless this throws.
    onclose() {
      throw new Error("ended");
    },
  });
}

async function parser(url, emit) {
  const { createParser } = await import("eventsource-parser");
  let last = "";
  let retry = 1000;
  for (;;) {
    try {
      const answer = await fetch(url, { headers: last ? { "Last-Event-ID": last } : {} });
      const events = createParser({
        onEvent: ({ event, data, id }) => {
          last = id ?? last;
          emit(event ?? "message", data, id);
        },
        onRetry: (ms) => (retry = ms),
      });
      const decoder = new TextDecoder();
      for await (const chunk of answer.body) events.feed(decoder.decode(chunk, { stream: true }));
    } catch (error) {
      console.error(String(error));
    }
    await wait(retry);
  }
}

const clients = {
  "eventsource 3": eventsource(3),
  "eventsource 4": eventsource(4),
  "launchdarkly-eventsource": launchDarkly,
  "event-source-polyfill": polyfill,
  "@microsoft/fetch-event-source": fetchEventSource,
  "eventsource-parser": parser,
};
const asked = process.argv.slice(2);
for (let at = 0; at < asked.length; at += 2) {
  const [client, url] = asked.slice(at, at + 2);
  clients[client](url, (type, data, id) => process.stdout.write(JSON.stringify({ client, type, data, id }) + "\n"));
}
