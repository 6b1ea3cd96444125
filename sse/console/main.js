import { Chart, count, seconds } from "./charts.js";
import { Stream } from "./stream.js";

const $ = (id) => document.getElementById(id);
const base = new URL("./events", document.baseURI);
const MOST_ROWS = 300;
const words = {
  expired: "Events after your last id are no longer kept. What follows is everything that is.",
  malformed: "The id to resume from is no id. What follows is everything that is kept.",
  unknown: "The id to resume from lies in the future: it is not from this log. What follows is everything that is kept.",
  "too-far": "Too many events were missed to replay them all. What follows are the newest.",
};

const authorization = () => ($("token").value ? { Authorization: `Bearer ${$("token").value}` } : {});
let stream = null;
let received = 0;
let replaying = 0;
let paused = false;
let held = [];

// ── the stream and its state machine ──────────────────────────────────────────────────────────────────────────

function listenUrl() {
  const url = new URL(base);
  for (const channel of $("channels").value.split(/[\s,]+/).filter(Boolean)) url.searchParams.append("channel", channel);
  for (const type of $("types").value.split(/[\s,]+/).filter(Boolean)) url.searchParams.append("event", type);
  const since = $("since").value;
  if (since) url.searchParams.set("since", since === "earliest" ? since : String(Date.now() - Number(since) * 1000));
  return url;
}

function show(state, from, caption) {
  $("machine").dataset.state = state;
  for (const node of document.querySelectorAll(".node")) node.classList.toggle("on", node.id === `node-${state}`);
  for (const edge of document.querySelectorAll(".edges path")) edge.classList.toggle("walked", edge.id === `edge-${from}-${state}`);
  $("machine-caption").textContent = caption;
  $("drop").disabled = state !== "open";
  $("close").disabled = state === "closed";
}

function notice(text, kind = "") {
  $("notice").textContent = text;
  $("notice").className = `notice ${kind}`;
  $("notice").hidden = !text;
}

$("listen").addEventListener("submit", (event) => {
  event.preventDefault();
  stream?.close();
  notice("");
  const mine = (stream = new Stream(listenUrl(), authorization));
  mine.addEventListener("state", ({ detail }) => mine === stream && onState(detail));
  mine.addEventListener("block", ({ detail }) => mine === stream && onBlock(detail));
  $("publish-channel").value ||= $("channels").value.split(/[\s,]+/)[0];
  mine.open();
});
$("drop").addEventListener("click", () => stream?.drop());
$("close").addEventListener("click", () => stream?.close());

let countdown = 0;
let missedFrom = "";
function onState({ state, from, why, due }) {
  clearInterval(countdown);
  if (state === "reconnecting") {
    missedFrom = stream.lastId;
    const tick = () => show(state, from, `${why}; again in ${Math.max(0, (due - Date.now()) / 1000).toFixed(1)} s, after ${missedFrom || "nothing yet"}`);
    tick();
    countdown = setInterval(tick, 100);
  } else if (state === "open") {
    replaying = missedFrom ? Date.now() : 0;
    show(state, from, missedFrom ? `open, resumed after ${missedFrom}` : "open");
  } else {
    show(state, from, state === "closed" && why && why !== "closed" ? why : state);
    if (state === "closed") {
      missedFrom = "";
      if (why && why !== "closed") notice(why, "bad");
    }
  }
}

let replayed = 0;
function onBlock(block) {
  if (block.retry !== null) $("retry").textContent = `${block.retry} ms`;
  if (block.id !== null) $("last-id").textContent = block.id;
  if (block.data === null) {
    replayed = 0;
    return;
  }
  if (block.event === "heartbeat") {
    $("heartbeat").textContent = new Date(Number(block.data)).toLocaleTimeString();
    return;
  }
  if (block.event === "stream-reset") {
    notice(words[JSON.parse(block.data).reason] ?? block.data);
    return;
  }
  received += 1;
  $("received").textContent = received.toLocaleString();
  // An event from before this connection was opened was missed, and has just been replayed.
  const missed = replaying && Number(block.id.split("-")[0]) < replaying;
  if (missed) {
    replayed += 1;
    notice(`The gap is filled: ${replayed} missed ${replayed === 1 ? "event" : "events"} replayed after ${missedFrom}.`, "good");
  }
  (paused ? held : rows).push({ ...block, missed });
  if (held.length > MOST_ROWS) held.shift();
}

// ── the events ────────────────────────────────────────────────────────────────────────────────────────────────

// Drawn once a frame at most: a thousand events a second must not freeze the page.
const rows = {
  queue: [],
  push(row) {
    this.queue.push(row);
    if (this.queue.length > MOST_ROWS) this.queue.shift();
    if (this.queue.length === 1) requestAnimationFrame(() => this.draw());
  },
  draw() {
    const drawn = this.queue.splice(0).reverse().map(element);
    $("events").prepend(...drawn);
    while ($("events").childElementCount > MOST_ROWS) $("events").lastElementChild.remove();
    $("empty").hidden = true;
  },
};

function element({ id, event, data, missed }) {
  const row = document.createElement("div");
  row.className = missed ? "row new replayed" : "row new";
  const part = (tag, name, text) => {
    const made = document.createElement(tag);
    made.className = name;
    made.textContent = text;
    row.append(made);
    return made;
  };
  part("span", "chip", event || "message");
  part("pre", "data", data);
  part("span", "id", id);
  part("time", "age", "now").dataset.at = id.split("-")[0];
  return row;
}

setInterval(() => {
  for (const made of document.querySelectorAll(".age")) {
    const age = (Date.now() - Number(made.dataset.at)) / 1000;
    made.textContent = age < 1 ? "now" : age < 100 ? `${age.toFixed(0)} s` : age < 6000 ? `${(age / 60).toFixed(0)} min` : `${(age / 3600).toFixed(0)} h`;
  }
}, 1000);

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  $("pause").textContent = paused ? "Go on" : "Pause";
  if (!paused) for (const row of held.splice(0)) rows.push(row);
});
$("clear").addEventListener("click", () => {
  $("events").replaceChildren();
  $("empty").hidden = false;
  notice("");
});

// ── publishing ────────────────────────────────────────────────────────────────────────────────────────────────

$("publish").addEventListener("submit", async (event) => {
  event.preventDefault();
  const url = new URL(`${base}/${encodeURIComponent($("publish-channel").value)}`);
  if ($("publish-type").value) url.searchParams.set("event", $("publish-type").value);
  try {
    const answer = await fetch(url, { method: "POST", body: $("publish-data").value, headers: authorization() });
    const told = await answer.json().catch(() => ({}));
    $("published").textContent = answer.ok ? `stored as ${told.id}` : told.detail || `refused with ${answer.status}`;
  } catch {
    $("published").textContent = "the server cannot be reached";
  }
});

const example = () => `curl -d '{"item":1}' '${base}/${($("channels").value.split(/[\s,]+/)[0] || "orders")}?event=created'`;
const renew = () => ($("example").textContent = example());
$("channels").addEventListener("input", renew);
$("copy").addEventListener("click", async () => {
  await navigator.clipboard?.writeText(example());
  $("copy").textContent = "Copied";
  setTimeout(() => ($("copy").textContent = "Copy"), 1500);
});
renew();

// ── the service's own state ───────────────────────────────────────────────────────────────────────────────────

const charts = {
  streams: new Chart($("charts"), "Streams", "", count),
  rate: new Chart($("charts"), "Delivered", "/s", count),
  published: new Chart($("charts"), "Published", "/s", count),
  delivery: new Chart($("charts"), "Delivery p99", "", seconds),
  canary: new Chart($("charts"), "Canary age", "", seconds),
  lag: new Chart($("charts"), "Loop lag", "", seconds),
};
let before = null;

function onStats(stats) {
  charts.streams.push(Object.values(stats.streams).reduce((sum, n) => sum + n, 0));
  if (before && stats.pid === before.pid) {
    const span = (stats.at - before.at) / 1000;
    charts.rate.push((stats.delivered - before.delivered) / span);
    charts.published.push((stats.published - before.published) / span);
  }
  before = stats;
  charts.delivery.push(stats.delivery_p99);
  charts.canary.push(stats.canary_age);
  charts.lag.push(stats.loop_lag);
  $("server").textContent = `log: ${stats.log}, answered ${seconds(stats.tail_age)} ago`;
  const workers = stats.workers ?? [{ pid: stats.pid, state: "running", streams: charts.streams.values.at(-1), canary_age: stats.canary_age, loop_lag: stats.loop_lag }];
  $("workers").replaceChildren(...workers.map(workerRow));
}

function workerRow(worker) {
  const row = document.createElement("tr");
  for (const text of [worker.pid, worker.state, count(worker.streams), seconds(worker.canary_age), seconds(worker.loop_lag)]) {
    row.insertCell().textContent = text;
  }
  row.cells[1].className = `state ${{ running: "", draining: "warn", booting: "warn" }[worker.state] ?? "bad"}`;
  return row;
}

const stats = new Stream(new URL(`${base}/_stats`), authorization);
stats.addEventListener("block", ({ detail }) => detail.event === "stats" && onStats(JSON.parse(detail.data)));
stats.addEventListener("state", ({ detail }) => {
  $("service-note").textContent =
    { open: "", connecting: "connecting", reconnecting: "the service cannot be reached, trying again" }[detail.state] ?? `no report: ${detail.why}`;
});
$("token").addEventListener("change", () => {
  stats.close();
  stats.open();
});
stats.open();
show("closed", "", "closed");
