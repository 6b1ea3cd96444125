// The list of events, newest first.
//
// Up to FAST events a second it is redrawn with each frame. Beyond that it is redrawn once a second, and not at all while
// somebody reads: the pointer or the focus is in it, or it is scrolled down. Events that arrive meanwhile wait, as they do
// while it is paused. Shown and waiting events are both limited; the list tells how many it has dropped.

import { age } from "./clock.js";
import { element } from "./row.js";

// Limits on the events that are shown, and the same again on those that wait.
const MOST_ROWS = 500;
const MOST_CHARS = 8 << 20; // of data
const FAST = 10; // events a second

export class List {
  // onChange: called with the list after a change: new rows, a rate, waiting events.
  constructor(box, onChange) {
    this.box = box;
    this.onChange = onChange;
    this.paused = false;
    this.scheduled = false;
    this.rate = 0; // events of the last full second
    this.counted = 0; // events of the present second
    this.pointed = false;
    this.clear();
    box.addEventListener("pointerenter", ({ pointerType }) => (this.pointed = pointerType === "mouse"));
    box.addEventListener("pointerleave", () => (this.pointed = false));
    setInterval(() => this.tick(), 1000);
  }

  get fast() {
    return Math.max(this.rate, this.counted) > FAST;
  }

  get reading() {
    return this.pointed || this.box.matches(":focus-within") || this.box.scrollTop > 0;
  }

  get held() {
    return this.paused || (this.fast && this.reading);
  }

  push(event) {
    this.counted += 1;
    this.total += 1;
    this.waiting.push(event);
    this.waitingChars += event.data.length;
    // Keep the newest event, however large it is.
    while (this.waiting.length > MOST_ROWS || (this.waitingChars > MOST_CHARS && this.waiting.length > 1)) {
      this.waitingChars -= this.waiting.shift().data.length;
      this.dropped += 1;
    }
    this.schedule();
    if (this.held) this.onChange(this);
  }

  pause() {
    this.paused = true;
    this.onChange(this);
  }

  goOn() {
    this.paused = false;
    this.draw();
    this.onChange(this);
  }

  clear() {
    this.waiting = [];
    this.waitingChars = 0;
    this.dropped = 0; // events that were dropped while they waited
    this.total = 0;
    this.shown = []; // { row, chars, channel }, newest first
    this.shownChars = 0;
    this.box.replaceChildren();
    this.onChange(this);
  }

  // Drop the events of an erased channel.
  forget(channel) {
    this.waiting = this.waiting.filter((event) => event.channel !== channel);
    this.waitingChars = this.waiting.reduce((sum, { data }) => sum + data.length, 0);
    for (const { row } of this.shown.filter((made) => made.channel === channel)) row.remove();
    this.shown = this.shown.filter((made) => made.channel !== channel);
    this.shownChars = this.shown.reduce((sum, { chars }) => sum + chars, 0);
    this.onChange(this);
  }

  schedule() {
    if (this.scheduled || this.held || !this.waiting.length) return;
    this.scheduled = true;
    const draw = () => {
      this.scheduled = false;
      if (!this.held) this.draw();
    };
    if (this.fast) setTimeout(draw, 1000);
    else requestAnimationFrame(draw);
  }

  draw() {
    if (!this.waiting.length) return;
    const events = this.waiting.reverse();
    this.waiting = [];
    this.waitingChars = 0;
    this.dropped = 0;
    const made = events.map((event) => ({ row: element(event), chars: event.data.length, channel: event.channel }));
    this.shown.unshift(...made);
    this.box.prepend(...made.map(({ row }) => row));
    for (const { chars } of made) this.shownChars += chars;
    while (this.shown.length > MOST_ROWS || (this.shownChars > MOST_CHARS && this.shown.length > 1)) {
      const { row, chars } = this.shown.pop();
      this.shownChars -= chars;
      row.remove();
    }
    this.onChange(this);
  }

  tick() {
    this.rate = this.counted;
    this.counted = 0;
    for (const made of this.box.querySelectorAll(".age")) {
      const text = age(Number(made.dataset.at));
      if (made.textContent !== text) made.textContent = text;
    }
    // Screen readers announce events as they arrive, except in a flood.
    this.box.ariaLive = this.fast ? "off" : "polite";
    this.schedule();
    this.onChange(this);
  }
}
