// One event as a row of the list.

import { copy, select } from "./clipboard.js";
import { age, timeOf } from "./clock.js";

// A longer event is cut short until the reader expands it.
const PREVIEW = 320; // characters
const PREVIEW_LINES = 6;
const SIZE_FROM = 1024; // bytes; smaller events do not show their size

export const size = (bytes) => {
  if (bytes < 1024) return `${bytes} B`;
  return bytes < 1 << 20 ? `${(bytes / 1024).toFixed(bytes < 10240 ? 1 : 0)} KB` : `${(bytes / (1 << 20)).toFixed(1)} MB`;
};

function beginning(data) {
  const lines = data.slice(0, PREVIEW).split("\n");
  return lines.slice(0, PREVIEW_LINES).join("\n");
}

// Event data is only ever set as text, never as HTML.
export function element({ id, event, data, missed, channel }) {
  const row = document.createElement("div");
  row.className = missed ? "row new replayed" : "row new";
  const part = (tag, name, text, parent = row) => {
    const made = document.createElement(tag);
    made.className = name;
    made.textContent = text;
    parent.append(made);
    return made;
  };
  const head = part("div", "head", "");
  part("span", "chip", event || "message", head).title = event || "message";
  part("span", "channel", channel, head);
  const bytes = new TextEncoder().encode(data).length;
  if (bytes >= SIZE_FROM) part("span", "size", size(bytes), head);
  part("time", "age", age(timeOf(id)), head).dataset.at = timeOf(id);
  const short = beginning(data);
  const body = part("pre", "data", short.length < data.length ? `${short}…` : data);
  const foot = part("div", "foot", "");
  part("span", "id", missed ? `${id} · replayed` : id, foot);
  if (short.length < data.length) {
    const button = part("button", "expand", "Expand", foot);
    button.type = "button";
    button.setAttribute("aria-expanded", "false");
    button.addEventListener("click", () => {
      const open = row.classList.toggle("open");
      body.textContent = open ? data : `${short}…`;
      // An expanded row scrolls, so the keyboard must reach it.
      if (open) body.tabIndex = 0;
      else body.removeAttribute("tabindex");
      button.textContent = open ? "Collapse" : "Expand";
      button.setAttribute("aria-expanded", String(open));
    });
  }
  const button = part("button", "copy", "Copy", foot);
  button.type = "button";
  button.addEventListener("click", () => copy(data, button, () => select(body)));
  return row;
}
