// The list of events, newest first. Drawn once a frame at most: a thousand events a second must not freeze the page.

import { age, timeOf } from "./clock.js";

const MOST_ROWS = 300;

export class List {
  // onDrawn: called after rows were drawn.
  constructor(box, onDrawn) {
    this.box = box;
    this.onDrawn = onDrawn;
    this.queue = [];
    this.held = null; // what comes while the list is paused
    setInterval(() => this.renewAges(), 1000);
  }

  push(row) {
    const to = this.held ?? this.queue;
    to.push(row);
    if (to.length > MOST_ROWS) to.shift();
    if (to === this.queue && to.length === 1) requestAnimationFrame(() => this.draw());
  }

  pause() {
    this.held = [];
  }

  goOn() {
    const held = this.held ?? [];
    this.held = null;
    for (const row of held) this.push(row);
  }

  clear() {
    this.queue.length = 0;
    this.held &&= [];
    this.box.replaceChildren();
  }

  draw() {
    if (!this.queue.length) return;
    this.box.prepend(...this.queue.splice(0).reverse().map(element));
    while (this.box.childElementCount > MOST_ROWS) this.box.lastElementChild.remove();
    this.onDrawn();
  }

  renewAges() {
    for (const made of this.box.querySelectorAll(".age")) made.textContent = age(Number(made.dataset.at));
  }
}

// What an event brings is only ever set as text.
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
  part("span", "chip", event || "message").title = event || "message";
  part("pre", "data", data);
  part("span", "id", missed ? `${id} · replayed` : id);
  part("time", "age", age(timeOf(id))).dataset.at = timeOf(id);
  return row;
}
