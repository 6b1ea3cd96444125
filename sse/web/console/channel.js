// One channel or pattern: what there is, who may do what, its runs, and what can be done to it.

import { ask, eventsOf, isPattern, Refused } from "./api.js";
import { age, timeOf } from "./clock.js";
import { confirm } from "./confirm.js";
import { clearHistory, readHistory } from "./history.js";
import { Poll } from "./poll.js";
import { showRights } from "./rights.js";
import { size } from "./row.js";
import { showRuns } from "./runs.js";

const $ = (id) => document.getElementById(id);

let channel = ""; // the one that is shown
let closed = false;
let may = {}; // what the visitor may do with it, by action
let changed = () => {}; // called after something was done to it

const facts = new Poll(
  // The channel itself is the first of those that begin with its name.
  async () => (await ask("GET", "./channels", { prefix: channel, limit: 1 })).channels.filter((info) => info.channel === channel),
  ([info]) => showFacts(info ?? null),
  () => {},
);
const runs = new Poll(
  async () => (await ask("GET", "./runs", { channel })).runs,
  (found) => showRuns(found, may.publish, () => runs.start()),
  () => {},
);

// info: what the list has of it; null: the log has nothing; undefined: not known.
function showFacts(info) {
  closed = Boolean(info?.closed);
  let text = info === null ? "The log has no events of it." : "";
  if (isPattern(channel)) text = channel === "*" ? "All channels." : `All channels that begin with ${channel.slice(0, -1)}.`;
  else if (info) {
    const events = `${info.events.toLocaleString("en")} ${info.events === 1 ? "event" : "events"}, ${size(info.bytes)}`;
    const ago = info.latest ? age(timeOf(info.latest)) : "";
    const newest = ago && `, the newest ${ago === "now" ? "just now" : `${ago} ago`}`;
    text = `${closed ? "Ended. " : ""}${events}${newest}; ${info.streams} ${info.streams === 1 ? "stream" : "streams"} of it.`;
  }
  if ($("channel-facts").textContent !== text) $("channel-facts").textContent = text;
  enable();
}

function enable() {
  const one = !isPattern(channel);
  $("channel-listen").disabled = $("channel-history").disabled = !may.subscribe;
  $("channel-end").disabled = !(may.publish && one && !closed);
  $("channel-streams").disabled = !may.manage;
  $("channel-erase").disabled = !(may.manage && one);
}

function say(text, bad = false) {
  $("channel-note").textContent = text;
  $("channel-note").classList.toggle("bad", bad);
}

// info: what the list has of it, if it does.
export async function openChannel(name, info) {
  channel = name;
  may = {};
  for (const poll of [facts, runs]) poll.stop();
  $("channel").hidden = false;
  $("channel-name").textContent = name;
  say("");
  showRuns([], false, () => {});
  clearHistory();
  showFacts(info);
  $("channel-name").focus();
  await renewChannel();
}

// Ask again, after the token has changed.
export async function renewChannel() {
  const mine = channel;
  if (!mine) return;
  try {
    const told = await showRights($("rights"), $("claims"), mine);
    if (mine !== channel) return;
    may = told;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    say(error.message, true);
    return;
  }
  enable();
  if (!may.subscribe || isPattern(channel)) return;
  facts.start();
  runs.start();
}

// Ask for confirmation, do it, and tell what came of it.
async function act(question, request, words) {
  const mine = channel;
  if (!(await confirm(question))) return;
  say("…");
  let text;
  let bad = false;
  try {
    text = words(await request());
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    text = error.message;
    bad = true;
  }
  if (mine === channel) {
    say(text, bad);
    if (!isPattern(channel)) facts.start();
  }
  changed();
}

$("channel-history").addEventListener("click", () => readHistory(channel, { again: true }));
$("channel-end").addEventListener("click", () => {
  const text = "Nothing can be published to it any more, and browsers stop reconnecting to it, until it is erased.";
  const request = () => ask("POST", eventsOf(channel), { need: "publish", close: 1 });
  act({ title: `End ${channel}?`, text, action: "End it" }, request, ({ id }) => `It has ended, at ${id}.`);
});
$("channel-streams").addEventListener("click", () => {
  const text = "All streams of it end, on every worker. Their clients reconnect, and get in again if they still may.";
  const request = () => ask("DELETE", "./streams", { need: "manage", channel });
  act({ title: `End the streams of ${channel}?`, text, action: "End them" }, request, () => "Its streams end.");
});
$("channel-erase").addEventListener("click", () => {
  const text = "All of its events leave the log and every worker. This cannot be undone.";
  const request = () => ask("DELETE", eventsOf(channel), { need: "manage" });
  const words = ({ erased, through }) => {
    clearHistory();
    return `${erased} ${erased === 1 ? "event is" : "events are"} erased, through ${through}.`;
  };
  act({ title: `Erase ${channel}?`, text, action: "Erase", word: channel }, request, words);
});

// onListen: called with the channel that the visitor wants to listen to; onChange: after something was done to one.
export function setUp(onListen, onChange) {
  $("channel-listen").addEventListener("click", () => onListen(channel));
  changed = onChange;
}
