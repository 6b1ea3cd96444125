// Node clients as a user would write them: `node clients.mjs NAME URL` prints one JSON line for each event.
// For tests/clients.
import { createRequire } from "node:module";

const [name, url] = process.argv.slice(2);
const TYPES = ["message", "heartbeat", "stream-reset", "update"];
const emit = (type, data, id) => process.stdout.write(JSON.stringify({ type, data, id }) + "\n");
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

async function eventsource() {
  const { EventSource } = await import("eventsource");
  const source = new EventSource(url);
  for (const type of TYPES) source.addEventListener(type, (event) => emit(event.type, event.data, event.lastEventId));
}

async function fetchEventSource() {
  // A browser's library: it asks the window for its timers and the document whether it can be seen.
  globalThis.window = globalThis;
  globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
  const library = createRequire(import.meta.url)("@microsoft/fetch-event-source");
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

async function parser() {
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

const clients = { eventsource, "@microsoft/fetch-event-source": fetchEventSource, "eventsource-parser": parser };
await clients[name]();
