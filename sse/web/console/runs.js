// The runs of a channel, and their stop buttons.

import { ask, Refused } from "./api.js";

const $ = (id) => document.getElementById(id);
const GOING_ON = ["starting", "running"];
const STOPS = 1000; // milliseconds within which a run stops

// mayStop: the visitor may publish to their channel; onStop: called when one should have stopped.
export function showRuns(runs, mayStop, onStop) {
  const focused = document.activeElement?.dataset.run;
  $("runs").hidden = !runs.length;
  $("run-rows").replaceChildren(...runs.map((run) => row(run, mayStop, onStop)));
  if (focused) [...$("run-rows").querySelectorAll("button")].find(({ dataset }) => dataset.run === focused)?.focus();
}

function row({ run, state, started, events }, mayStop, onStop) {
  const made = document.createElement("tr");
  const chip = { running: "", done: "", starting: "warn", stopped: "warn" }[state] ?? "bad";
  for (const text of [state, new Date(started).toLocaleTimeString(), events.toLocaleString("en")]) made.insertCell().textContent = text;
  made.cells[0].className = `state ${chip}`;
  made.title = run;
  const last = made.insertCell();
  if (!GOING_ON.includes(state)) return made;
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Stop";
  button.dataset.run = run;
  button.disabled = !mayStop;
  button.ariaLabel = `Stop the run ${run}`;
  button.addEventListener("click", () => stop(run, button, onStop));
  last.append(button);
  return made;
}

async function stop(run, button, onStop) {
  button.disabled = true;
  $("run-note").textContent = "";
  try {
    await ask("POST", `./runs/${encodeURIComponent(run)}/stop`, { need: "publish" });
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    $("run-note").textContent = error.message;
  }
  setTimeout(onStop, STOPS);
}
