// The Durable Streams reference server with its file-backed store, as its README shows it.
import { DurableStreamTestServer } from "@durable-streams/server";

const server = new DurableStreamTestServer({
  port: Number(process.env.PORT),
  host: "127.0.0.1",
  dataDir: process.env.DATA_DIR,
});
await server.start();

// A stream that a probe can read.
await fetch(`http://127.0.0.1:${process.env.PORT}/healthz`, { method: "PUT", headers: { "Content-Type": "text/plain" } });
