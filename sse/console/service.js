// The service's own state, from a stream of its own: one report a second.

import { Chart, count, seconds } from "./charts.js";
import { learn } from "./clock.js";
import { Stream } from "./stream.js";

const $ = (id) => document.getElementById(id);
const RATE_OVER = 3; // reports: each worker tells its numbers once a second, and not in step

const charts = {
  streams: new Chart($("charts"), "Streams", "", count),
  delivered: new Chart($("charts"), "Delivered", "/s", count),
  published: new Chart($("charts"), "Published", "/s", count),
  delivery: new Chart($("charts"), "Delivery p99", "", (value) => `≤ ${seconds(value)}`),
  canary: new Chart($("charts"), "Canary age", "", seconds),
  lag: new Chart($("charts"), "Loop lag", "", seconds),
};
let reports = [];

export function onReport(report) {
  learn(report.at);
  const workers = report.workers ?? [];
  const own = Object.values(report.streams).reduce((sum, n) => sum + n, 0);
  charts.streams.push(workers.length ? workers.reduce((sum, { streams }) => sum + streams, 0) : own);
  const before = reports[0];
  // Another worker's, or another run's, numbers do not continue these.
  if (before && (report.opened < before.opened || (!workers.length && report.pid !== before.pid))) reports = [];
  else if (before) {
    const span = (report.at - before.at) / 1000;
    for (const name of ["delivered", "published"]) charts[name].push((report[name] - before[name]) / span);
  }
  reports.push(report);
  if (reports.length > RATE_OVER) reports.shift();
  charts.delivery.push(report.delivery_p99);
  charts.canary.push(report.canary_age);
  charts.lag.push(report.loop_lag);
  const stale = report.tail_age > 5;
  $("server").textContent = `log: ${report.log}, ${stale ? "silent for" : "answered"} ${seconds(report.tail_age)}${stale ? "" : " ago"}`;
  $("server").classList.toggle("bad", stale);
  const alone = { pid: report.pid, state: "running", streams: own, canary_age: report.canary_age, loop_lag: report.loop_lag };
  $("workers").replaceChildren(...(workers.length ? workers : [alone]).map(row));
}

function row(worker) {
  const made = document.createElement("tr");
  for (const text of [worker.pid, worker.state, count(worker.streams), seconds(worker.canary_age), seconds(worker.loop_lag)]) {
    made.insertCell().textContent = text;
  }
  made.cells[1].className = `state ${{ running: "", draining: "warn", booting: "warn" }[worker.state] ?? "bad"}`;
  return made;
}

export function follow(base, authorization) {
  const stats = new Stream(new URL(`${base}/_stats`), authorization);
  stats.addEventListener("block", ({ detail }) => detail.event === "stats" && onReport(JSON.parse(detail.data)));
  stats.addEventListener("state", ({ detail }) => {
    const told = { open: "", connecting: "connecting", reconnecting: "no report: the connection is lost, trying again" };
    $("service-note").textContent = told[detail.state] ?? `no report: ${detail.why}`;
    document.querySelector(".service").classList.toggle("stale", detail.state !== "open");
  });
  stats.open();
  return stats;
}
