import { draw } from "./machine.js";
import { learn, now, timeOf } from "./clock.js";
import { List } from "./list.js";
import { follow } from "./service.js";
import { Stream } from "./stream.js";
import { Timeline } from "./timeline.js";

const $ = (id) => document.getElementById(id);
const base = new URL("./events", document.baseURI);
const WORDS = {
  expired: "Some of what you ask for is no longer kept. What follows is everything that is",
  malformed: "The id to resume from is no id. What follows is everything that is kept",
  unknown: "The id to resume from lies in the future: it is not from this log. What follows is everything that is kept",
  "too-far": "Too many events were missed to replay them all. What follows are the newest",
};

const authorization = () => ($("token").value ? { Authorization: `Bearer ${$("token").value}` } : {});
const words = (text) => text.split(/[\s,]+/).filter(Boolean);
const channels = () => words($("channels").value);

let stream = null;
let received = 0;
let opened = 0; // when this connection was opened, in the server's time
let resumed = ""; // the id that it was resumed after
let replayed = 0; // missed events that it has brought

const timeline = new Timeline($("timeline"));
const list = new List($("events"), () => {
  $("empty").hidden = true;
  if (replayed) notice(`The gap is filled: ${replayed} missed ${replayed === 1 ? "event" : "events"} replayed after ${resumed}.`, "good");
});

// ── the stream and its state machine ──────────────────────────────────────────────────────────────────────────

function listenUrl() {
  const url = new URL(base);
  for (const channel of channels()) url.searchParams.append("channel", channel);
  for (const type of words($("types").value)) url.searchParams.append("event", type);
  const since = $("since").value;
  if (since) url.searchParams.set("since", since === "earliest" ? since : String(Math.round(now() - Number(since) * 1000)));
  return url;
}

function notice(text, kind = "") {
  $("notice").textContent = text;
  $("notice").className = `notice ${kind}`;
  $("notice").hidden = !text;
}

function listen() {
  stream?.close();
  notice("");
  resumed = "";
  replayed = 0;
  const mine = (stream = new Stream(listenUrl(), authorization));
  mine.addEventListener("state", ({ detail }) => mine === stream && onState(detail));
  mine.addEventListener("block", ({ detail }) => mine === stream && onBlock(detail));
  if (!$("publish-channel").value) $("publish-channel").value = channels()[0] ?? "";
  mine.open();
}

function onState({ state, from, why, due, wait }) {
  let caption = state;
  if (state === "reconnecting") {
    resumed = stream.lastId;
    replayed = 0;
    caption = why;
  } else if (state === "open") {
    opened = now();
    caption = resumed ? `open, resumed after ${resumed}` : `open: ${channels().join(", ")}`;
  } else if (state === "closed") {
    if (why && why !== "closed") notice(why, "bad");
  }
  draw({ state, from, caption, due, wait });
  timeline.become(state);
  $("drop").disabled = state !== "open";
  $("close").disabled = state === "closed";
  $("connect").textContent = state === "closed" ? "Connect" : "Restart";
  $("waiting").textContent = state === "open" ? "Connected; nothing yet. Publish something here, or from a terminal:" : "Nothing yet. Connect, then publish something here, or from a terminal:";
}

function onReset(data) {
  const told = JSON.parse(data);
  const oldest = told.oldest ? `, since ${new Date(timeOf(told.oldest)).toLocaleString()}` : "";
  notice(told.reason in WORDS ? `${WORDS[told.reason]}${oldest}.` : data);
}

function onBlock(block) {
  if (block.retry !== null) $("retry").textContent = `${block.retry} ms`;
  if (block.id !== null) $("last-id").textContent = block.id;
  if (block.data === null) return;
  if (block.event === "heartbeat") {
    learn(Number(block.data));
    $("heartbeat").textContent = new Date(Number(block.data)).toLocaleTimeString();
    return;
  }
  if (block.event === "stream-reset") return onReset(block.data);
  $("received").textContent = (received += 1).toLocaleString();
  const at = timeOf(stream.lastId);
  // An event from before this connection was opened was missed, and has just been replayed.
  const missed = Boolean(resumed) && at < opened;
  replayed += missed;
  timeline.mark(at, missed);
  list.push({ ...block, id: stream.lastId, missed });
  showHeld();
}

$("listen").addEventListener("submit", (event) => {
  event.preventDefault();
  listen();
});
$("drop").addEventListener("click", () => stream?.drop());
$("close").addEventListener("click", () => stream?.close());

// ── the events ────────────────────────────────────────────────────────────────────────────────────────────────

const showHeld = () => ($("held").textContent = list.held ? `paused, ${list.held.length} waiting` : "");
$("pause").addEventListener("click", () => {
  const pausing = !list.held;
  if (pausing) list.pause();
  else list.goOn();
  $("pause").setAttribute("aria-pressed", String(pausing));
  showHeld();
});
$("clear").addEventListener("click", () => {
  list.clear();
  showHeld();
  $("empty").hidden = false;
  replayed = 0;
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
    told = answer.ok ? `stored as ${said.id}` : said.detail || `refused with ${answer.status}`;
    $("published").classList.toggle("bad", !answer.ok);
  } catch {
    told = "the server cannot be reached";
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
$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(example());
    $("copy").textContent = "Copied";
  } catch {
    // No clipboard without TLS, or none allowed: then it is marked, to be copied by hand.
    getSelection().selectAllChildren($("example"));
    $("copy").textContent = "Marked";
  }
  setTimeout(() => ($("copy").textContent = "Copy"), 1500);
});

// ── the start ─────────────────────────────────────────────────────────────────────────────────────────────────

const stats = follow(base, authorization);
$("who").addEventListener("submit", (event) => event.preventDefault());
$("token").addEventListener("change", () => {
  renew();
  stats.close();
  stats.open();
});

// A link may say what to listen to: /?channel=orders&channel=stock&event=created&since=earliest
const asked = new URLSearchParams(location.search);
if (asked.has("channel")) $("channels").value = asked.getAll("channel").join(" ");
$("types").value = asked.getAll("event").join(" ");
if ([...$("since").options].some(({ value }) => value === asked.get("since"))) $("since").value = asked.get("since");
renew();
draw({ state: "closed", from: "", caption: "closed" });
if (asked.has("channel")) listen();
