// A stream as it should be: ids, retry, heartbeats, and a health route. PORT, and BEAT in ms. CLUMP: ms for which events
// are collected, as a proxy or a compressor does; none by default.
import { createServer } from "node:http";

const beat = Number(process.env.BEAT ?? 500);
const clump = Number(process.env.CLUMP ?? 0);

createServer((request, response) => {
  if (request.url.startsWith("/healthz")) {
    response.writeHead(200, { "Content-Type": "text/plain", "Content-Length": "3" });
    response.end("ok\n");
    return;
  }
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache" });
  response.write("retry: 2000\n\n");
  let next = Number(request.headers["last-event-id"] ?? Math.floor(Date.now() / beat)) + 1;
  let collected = Date.now();
  const timer = setInterval(() => {
    if (Date.now() - collected < clump) return;
    collected = Date.now();
    for (const now = Math.floor(Date.now() / beat); next <= now; next += 1) {
      response.write(`id: ${next}\ndata: ${next * beat}\n\n`);
    }
  }, 50);
  request.on("close", () => clearInterval(timer));
}).listen(Number(process.env.PORT), "127.0.0.1");
