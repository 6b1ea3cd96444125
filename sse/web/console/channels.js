// The channels that the log has, and how many streams listen to each.

import { ask } from "./api.js";
import { openChannel } from "./channel.js";
import { count } from "./charts.js";
import { age, timeOf } from "./clock.js";
import { Poll } from "./poll.js";
import { size } from "./row.js";

const $ = (id) => document.getElementById(id);
const PAGE = 20; // channels

let prefix = "";
let pages = [""]; // the channel before each page so far, the newest page last
let following = null; // the channel before the next page, if there is one

export const list = new Poll(
  () => ask("GET", "./channels", { need: "manage", prefix, after: pages.at(-1), limit: PAGE }),
  ({ channels, next }) => {
    following = next;
    draw(channels);
    const from = pages.length > 1 ? ` after ${pages.at(-1)}` : "";
    say(channels.length ? "" : `No channel${prefix ? ` begins with ${prefix}` : " has events"}${from}.`);
  },
  (why) => {
    following = null;
    draw([]);
    say(why, true);
  },
);

function say(text, bad = false) {
  if ($("list-note").textContent !== text) $("list-note").textContent = text;
  $("list-note").classList.toggle("bad", bad);
}

function draw(channels) {
  const focused = document.activeElement?.dataset.channel;
  const rows = channels.map(row);
  $("channel-rows").replaceChildren(...rows);
  $("channel-table").hidden = !channels.length;
  $("previous").disabled = pages.length === 1;
  $("next").disabled = !following;
  if (focused) rows.find(({ dataset }) => dataset.name === focused)?.querySelector("button").focus();
}

function row(info) {
  const made = document.createElement("tr");
  made.dataset.name = info.channel;
  const head = document.createElement("th");
  head.scope = "row";
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = button.dataset.channel = info.channel;
  button.addEventListener("click", () => openChannel(info.channel, info));
  head.append(button);
  if (info.closed) head.append(" ended");
  made.append(head);
  const newest = info.latest ? age(timeOf(info.latest)) : "–";
  for (const text of [count(info.streams), count(info.events), size(info.bytes), newest]) made.insertCell().textContent = text;
  return made;
}

function find(text) {
  prefix = text.replace(/\*$/, "");
  pages = [""];
  list.start();
}

$("find").addEventListener("submit", (event) => {
  event.preventDefault();
  find($("prefix").value);
});
$("open-channel").addEventListener("click", () => {
  if ($("prefix").reportValidity() && $("prefix").value) openChannel($("prefix").value);
  else $("prefix").focus();
});
$("next").addEventListener("click", () => {
  pages.push(following);
  list.start();
});
$("previous").addEventListener("click", () => {
  pages.pop();
  list.start();
});
