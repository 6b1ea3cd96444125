// A channel's events as the log has them, page by page, the oldest first.

import { ask, eventsOf, Refused } from "./api.js";
import { sinceOf, timeOf } from "./clock.js";
import { explain } from "./resets.js";
import { element } from "./row.js";

const $ = (id) => document.getElementById(id);
const PAGE = 50; // events

let cursor = "";
let asked = 0; // counts the questions, so that only the newest one's answer is shown

export function clearHistory() {
  asked += 1;
  $("history-part").hidden = true;
  $("history").replaceChildren();
}

// Show the next page. again: the first one.
export async function readHistory(channel, { again = false } = {}) {
  if (again) {
    clearHistory();
    cursor = sinceOf($("history-from").value) || "earliest";
    $("history-more").onclick = () => readHistory(channel);
    $("history-from").onchange = () => readHistory(channel, { again: true });
    $("history-part").hidden = false;
  }
  const number = (asked += 1);
  let note;
  try {
    const page = await ask("GET", eventsOf(channel), { need: "read", headers: { Accept: "application/json" }, since: cursor, limit: PAGE });
    if (number !== asked) return;
    cursor = page.next;
    $("history").append(...page.events.map(made));
    if (page.reset) note = explain(page.reset);
    else if (page.closed) note = "That is all: it has ended.";
    else if (!page.events.length) note = "No more events so far.";
    else note = `Through ${new Date(timeOf(page.events.at(-1).id)).toLocaleString()}.`;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (number !== asked) return;
    note = error.message;
  }
  $("history-note").textContent = note;
}

function made(event) {
  const row = element({ ...event, missed: false });
  const time = row.querySelector("time");
  time.className = "at"; // it does not age
  time.textContent = new Date(timeOf(event.id)).toLocaleString();
  return row;
}
