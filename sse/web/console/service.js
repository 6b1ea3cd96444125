// The service's own state, from a separate stream: one report a second.

import { Chart, count, seconds } from "./charts.js";
import { learn } from "./clock.js";
import { Rates } from "./rates.js";
import { Stream } from "./stream.js";

const $ = (id) => document.getElementById(id);
const SILENT = 3500; // milliseconds without a report until figures count as old; there is one report a second

const charts = {
  streams: new Chart($("charts"), "Streams", "", count),
  delivered: new Chart($("charts"), "Delivered", "/s", count),
  published: new Chart($("charts"), "Published", "/s", count),
  delivery: new Chart($("charts"), "Delivery p99", "", (value) => `≤ ${seconds(value)}`),
  canary: new Chart($("charts"), "Oldest canary", "", seconds),
  lag: new Chart($("charts"), "Worst loop lag", "", seconds),
};
// `opened` reveals a restart after which the other two counters happen to be higher.
const rates = new Rates(["delivered", "published", "opened"]);
let seen = 0; // when the last report arrived, by this page's own clock
let lost = ""; // why there is no stream of reports; empty while there is one

const worst = (values) => Math.max(...values.map((value) => (typeof value === "number" ? value : NaN)));

function onReport(report) {
  learn(report.at);
  seen = performance.now();
  const own = Object.values(report.streams).reduce((sum, n) => sum + n, 0);
  const alone = { pid: report.pid, state: "running", streams: own, canary_age: report.canary_age, loop_lag: report.loop_lag };
  const workers = report.workers?.length ? report.workers : [alone];
  // Compute the figures from the table's rows, so that they never contradict it.
  charts.streams.push(workers.reduce((sum, { streams }) => sum + streams, 0));
  charts.canary.push(worst(workers.map((worker) => worker.canary_age)));
  charts.lag.push(worst(workers.map((worker) => worker.loop_lag)));
  const known = rates.add({ ...report, from: workers.map(({ pid }) => pid).sort().join() });
  for (const name of ["delivered", "published"]) charts[name].push(known[name]);
  charts.delivery.push(report.delivery_p99);
  $("workers").replaceChildren(...workers.map(row));
  const silent = report.tail_age > 5;
  $("server").textContent = `log: ${report.log}, ${silent ? "silent for" : "answered"} ${seconds(report.tail_age)}${silent ? "" : " ago"}`;
  $("server").classList.toggle("bad", silent);
  judge();
}

// Mark old figures as old: a dead server sends nothing, and its connection may stay open.
function judge() {
  const silence = performance.now() - seen;
  const stale = Boolean(lost) || silence > SILENT;
  document.querySelector(".service").classList.toggle("stale", stale);
  if (!stale) {
    $("service-note").textContent = "";
    return;
  }
  for (const chart of Object.values(charts)) chart.unknown();
  const since = seen ? `no report for ${seconds(silence / 1000)}` : "no report yet";
  $("service-note").textContent = lost ? `${since}: ${lost}` : `${since}, though the connection is open`;
  $("server").textContent = since;
  $("server").classList.add("bad");
}

function row(worker) {
  const made = document.createElement("tr");
  for (const text of [worker.pid, worker.state, count(worker.streams), seconds(worker.canary_age), seconds(worker.loop_lag)]) {
    made.insertCell().textContent = text;
  }
  made.cells[1].className = `state ${{ running: "", draining: "warn", booting: "warn" }[worker.state] ?? "bad"}`;
  return made;
}

// onAnswer: called with the HTTP status of the answer.
export function follow(base, authorization, onAnswer) {
  const stats = new Stream(new URL(`${base}/_stats`), authorization);
  stats.addEventListener("block", ({ detail }) => detail.event === "stats" && onReport(JSON.parse(detail.data)));
  stats.addEventListener("state", ({ detail }) => {
    if (detail.status) onAnswer(detail.status);
    if (detail.state === "open") {
      rates.forget();
      lost = "";
      return;
    }
    lost = { connecting: "connecting", reconnecting: `${detail.why}, trying again` }[detail.state] ?? detail.why;
    if (seen || detail.state === "closed") judge();
  });
  setInterval(() => seen && judge(), 1000);
  stats.open();
  return stats;
}
