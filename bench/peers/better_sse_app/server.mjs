// better-sse as its guide on channels shows it, on Node's http server.
import { createServer } from "node:http";
import { createChannel, createSession } from "better-sse";

const channels = new Map();

function channelOf(name) {
  if (!channels.has(name)) channels.set(name, createChannel());
  return channels.get(name);
}

const server = createServer(async (req, res) => {
  if (!req.url.startsWith("/events/")) {
    res.end("ok\n");
    return;
  }
  const channel = channelOf(req.url.slice("/events/".length));
  if (req.method === "GET") {
    // The data is text already: the default serializer would quote it once more.
    const session = await createSession(req, res, { serializer: String, keepAlive: 15000 });
    channel.register(session);
    return;
  }
  let body = "";
  req.setEncoding("utf8");
  for await (const piece of req) body += piece;
  channel.broadcast(body);
  res.writeHead(201, { "Content-Type": "application/json" }).end("{}\n");
});
server.keepAliveTimeout = 75_000;
server.listen(Number(process.env.PORT), "127.0.0.1", 4096);
