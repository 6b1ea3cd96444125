import { events as base, isPattern } from "./api.js";
import { renewChannel, setUp } from "./channel.js";
import { list as channelList } from "./channels.js";
import { copy, select } from "./clipboard.js";
import { learn, now, sinceOf, timeOf } from "./clock.js";
import { List } from "./list.js";
import { draw } from "./machine.js";
import { explain } from "./resets.js";
import { follow } from "./service.js";
import { Stream } from "./stream.js";
import { Timeline } from "./timeline.js";
import { authorization, learnNeed } from "./token.js";

const $ = (id) => document.getElementById(id);
const words = (text) => text.split(/[\s,]+/).filter(Boolean);
const number = (value) => value.toLocaleString("en");
const channels = () => words($("channels").value);

let stream = null;
let subscribed = []; // the stream's channels and patterns
let envelope = false; // each event tells its channel: it may be one of several
let received = 0;
let opened = 0; // when this connection was opened, in the server's time
let resumed = ""; // the id that it was resumed after
let replayed = 0; // missed events that it has replayed
let heard = 0; // when the last block arrived, by this page's own clock
let beaten = 0; // when the last heartbeat arrived; the opening does not count
let beat = Infinity; // the shortest time between two heartbeats so far, in milliseconds

const timeline = new Timeline($("timeline"));
const list = new List($("events"), onList);

// ── the stream and its state machine ──────────────────────────────────────────────────────────────────────────

function listenUrl() {
  const url = new URL(base);
  for (const channel of subscribed) url.searchParams.append("channel", channel);
  for (const type of words($("types").value)) url.searchParams.append("event", type);
  if (envelope) url.searchParams.set("envelope", "1");
  const since = sinceOf($("since").value);
  if (since) url.searchParams.set("since", since);
  return url;
}

function notice(text, kind = "") {
  $("notice").textContent = text;
  $("notice").className = `notice ${kind}`;
  $("notice").hidden = !text;
}

// Start a new stream, and clear the last one's events: the new one may replay them.
function listen() {
  stream?.close();
  notice("");
  subscribed = channels();
  envelope = subscribed.length > 1 || subscribed.some(isPattern);
  resumed = "";
  replayed = 0;
  received = 0;
  beat = Infinity;
  for (const [id, text] of Object.entries({ "last-id": "none", retry: "–", heartbeat: "–", received: "0" })) $(id).textContent = text;
  $("heartbeat").classList.remove("bad");
  timeline.clear();
  empty();
  const mine = (stream = new Stream(listenUrl(), authorization));
  mine.addEventListener("state", ({ detail }) => mine === stream && onState(detail));
  mine.addEventListener("block", ({ detail }) => mine === stream && onBlock(detail));
  if (!$("publish-channel").value) $("publish-channel").value = subscribed[0] ?? "";
  mine.open();
}

function onState({ state, from, why, due, wait, status }) {
  let caption = state;
  if (state === "reconnecting") {
    resumed = stream.lastId;
    replayed = 0;
    caption = why;
  } else if (state === "open") {
    opened = now();
    heard = beaten = 0;
    caption = resumed ? `open, resumed after ${resumed}` : `open: ${subscribed.join(", ")}`;
  } else if (state === "closed") {
    if (why === "ended") notice(`${subscribed.join(", ")} ${subscribed.length === 1 ? "has" : "have"} ended: nothing will follow.`);
    else if (why && why !== "closed") notice(why, "bad");
  }
  if (status) learnNeed("read", status);
  draw({ state, from, caption, due, wait });
  timeline.become(state);
  $("drop").disabled = state !== "open";
  $("close").disabled = state === "closed";
  $("connect").textContent = state === "closed" ? "Connect" : "Restart";
  $("waiting").textContent = `${state === "open" ? "Connected; nothing" : "Nothing"} yet. ${state === "open" ? "Publish" : "Connect, then publish"} something here, or from a terminal:`;
}

function onReset(reset) {
  if (reset.reason === "erased") list.forget(reset.channel);
  notice(explain(reset));
}

// Return an event's channel and data. The service's own records tell their channel, and are in no envelope.
function contents(block) {
  if (!envelope) return { channel: subscribed[0], data: block.data };
  const told = JSON.parse(block.data);
  return block.event === "run" ? { channel: told.channel ?? "", data: block.data } : told;
}

function onBlock(block) {
  heard = performance.now();
  if (block.retry !== null) $("retry").textContent = `${block.retry} ms`;
  if (block.id !== null) $("last-id").textContent = block.id;
  if (block.data === null) return;
  if (block.event === "heartbeat") {
    learn(Number(block.data));
    if (beaten) beat = Math.min(beat, heard - beaten);
    beaten = block.retry === null ? heard : 0;
    $("heartbeat").textContent = new Date(Number(block.data)).toLocaleTimeString();
    return;
  }
  if (block.event === "stream-reset") return onReset(JSON.parse(block.data));
  if (block.event === "stream-end") return notice(`${JSON.parse(block.data).channel ?? "The stream"} has ended.`);
  $("received").textContent = (received += 1).toLocaleString();
  const at = timeOf(stream.lastId);
  // An event older than this connection was missed, and has just been replayed.
  const missed = Boolean(resumed) && at < opened;
  replayed += missed;
  timeline.mark(at, missed);
  list.push({ event: block.event, ...contents(block), id: stream.lastId, missed });
}

// A connection to a dead server can stay open for minutes, so warn when three heartbeats are missing.
setInterval(() => {
  const silence = performance.now() - heard;
  const late = stream?.state === "open" && heard && silence > Math.max(3 * beat, 3000);
  $("heartbeat").classList.toggle("bad", Boolean(late));
  if (late) $("heartbeat").textContent = `none for ${(silence / 1000).toFixed(0)} s`;
}, 1000);

$("listen").addEventListener("submit", (event) => {
  event.preventDefault();
  listen();
});
$("drop").addEventListener("click", () => stream?.drop());
$("close").addEventListener("click", () => stream?.close());

// ── the events ────────────────────────────────────────────────────────────────────────────────────────────────

function onList({ paused, held, fast, rate, waiting, dropped, shown, total }) {
  const waits = `${number(waiting.length)} waiting${dropped ? `, ${number(dropped)} older ones dropped` : ""}`;
  let told = "";
  if (paused) told = `paused, ${waits}`;
  else if (held) told = `${number(rate)} a second; held while you read, ${waits}`;
  else if (fast && rate) told = `${number(rate)} a second; updated once a second`;
  $("held").textContent = told;
  const gone = total - shown.length - waiting.length - dropped;
  $("kept").textContent = gone > 0 ? `The newest ${number(shown.length)} of ${number(total)}` : "";
  $("empty").hidden = shown.length > 0;
  if (replayed && shown.length) notice(`The gap is filled: ${replayed} missed ${replayed === 1 ? "event" : "events"} replayed after ${resumed}.`, "good");
}

function empty() {
  replayed = 0;
  list.clear();
}

$("pause").addEventListener("click", () => {
  if (list.paused) list.goOn();
  else list.pause();
  $("pause").setAttribute("aria-pressed", String(list.paused));
});
$("clear").addEventListener("click", () => {
  empty();
  notice("");
});

// ── publishing ────────────────────────────────────────────────────────────────────────────────────────────────

$("publish").addEventListener("submit", async (event) => {
  event.preventDefault();
  const url = new URL(`${base}/${encodeURIComponent($("publish-channel").value)}`);
  if ($("publish-type").value) url.searchParams.set("event", $("publish-type").value);
  let told;
  try {
    const answer = await fetch(url, { method: "POST", body: $("publish-data").value, headers: authorization() });
    const said = await answer.json().catch(() => ({}));
    learnNeed("publish", answer.status);
    told = answer.ok ? `stored as ${said.id}` : said.detail || `refused with ${answer.status}`;
    $("published").classList.toggle("bad", !answer.ok);
  } catch {
    told = "cannot reach the server";
    $("published").classList.add("bad");
  }
  $("published").textContent = told;
});

function example() {
  const token = $("token").value ? `-H "Authorization: Bearer $TOKEN" ` : "";
  return `curl ${token}-d '{"item":1}' '${base}/${encodeURIComponent(channels()[0] ?? "orders")}?event=created'`;
}
const renew = () => ($("example").textContent = example());
$("channels").addEventListener("input", renew);
$("copy").addEventListener("click", () => copy(example(), $("copy"), () => select($("example"))));

// ── channels ──────────────────────────────────────────────────────────────────────────────────────────────────

function listenTo(channel) {
  $("channels").value = channel;
  renew();
  listen();
  $("listen-title").scrollIntoView();
}
setUp(listenTo, () => channelList.restart());

// ── the start ─────────────────────────────────────────────────────────────────────────────────────────────────

const stats = follow(base, authorization, (status) => learnNeed("read", status));
// A hidden tab needs no figures: over HTTP/1.1 all tabs of a browser share six connections to a server.
document.addEventListener("visibilitychange", () => {
  stats.close();
  if (!document.hidden) stats.open();
});
$("who").addEventListener("submit", (event) => event.preventDefault());
$("token").addEventListener("change", () => {
  renew();
  stats.close();
  stats.open();
  channelList.restart();
  renewChannel();
});

// A link may name channels, types and a beginning: /?channel=orders&channel=stock&event=created&since=earliest
const asked = new URLSearchParams(location.search);
if (asked.has("channel")) $("channels").value = asked.getAll("channel").join(" ");
$("types").value = asked.getAll("event").join(" ");
if ([...$("since").options].some(({ value }) => value === asked.get("since"))) $("since").value = asked.get("since");
renew();
draw({ state: "closed", from: "", caption: "closed" });
if (asked.has("channel")) listen();
