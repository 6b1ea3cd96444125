// The last minute of one stream: the connection's state as a band, and above it the events at their publishing times.
// A lost connection leaves a gap, and a resume fills it.
//
// Events are only counted in slots of time, so a minute of ten thousand events a second takes no more memory than one.

import { now } from "./clock.js";

const SPAN = 60_000; // milliseconds
const SLOT = 250; // milliseconds; about two pixels
const BAND = 6; // pixels
const COLOURS = { open: "--good", connecting: "--accent", reconnecting: "--warn" };

export class Timeline {
  constructor(canvas) {
    this.canvas = canvas;
    this.clear();
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    setInterval(() => document.hidden || this.draw(), calm ? 1000 : 100);
  }

  clear() {
    this.spans = [];
    this.slots = new Map(); // number of the slot → { live, missed }
  }

  become(state) {
    this.spans.push({ state, at: now() });
  }

  mark(at, missed) {
    // Skip events that are too old to show, and times in the future, which would never be forgotten.
    if (Math.abs(now() - at) > SPAN) return;
    const number = Math.floor(at / SLOT);
    const slot = this.slots.get(number) ?? { live: 0, missed: 0 };
    slot[missed ? "missed" : "live"] += 1;
    this.slots.set(number, slot);
  }

  forget(before) {
    while (this.spans.length > 1 && this.spans[1].at < before) this.spans.shift();
    for (const number of this.slots.keys()) if ((number + 1) * SLOT < before) this.slots.delete(number);
  }

  draw() {
    const { canvas } = this;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    const paint = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    const colour = (name) => style.getPropertyValue(name);
    paint.setTransform(ratio, 0, 0, ratio, 0, 0);
    paint.clearRect(0, 0, width, height);
    const end = now();
    this.forget(end - SPAN);
    const x = (at) => width - ((end - at) / SPAN) * width;
    paint.fillStyle = colour("--line");
    paint.fillRect(0, height - BAND, width, BAND);
    this.spans.forEach(({ state, at }, i) => {
      if (!COLOURS[state]) return;
      paint.fillStyle = colour(COLOURS[state]);
      const from = Math.max(0, x(at));
      paint.fillRect(from, height - BAND, x(this.spans[i + 1]?.at ?? end) - from, BAND);
    });
    // The scale is logarithmic, so that one event is visible beside a thousand.
    const floor = height - BAND - 2;
    const most = Math.max(...[...this.slots.values()].map(({ live, missed }) => live + missed));
    const bar = (at, events, name) => {
      const tall = floor * (0.45 + (0.55 * Math.log(events)) / Math.log(Math.max(most, 2)));
      paint.fillStyle = colour(name);
      paint.fillRect(x(at), floor - tall, 2, tall);
    };
    for (const [number, { live, missed }] of this.slots) {
      if (live + missed) bar(number * SLOT, live + missed, missed ? "--warn" : "--accent");
    }
  }
}
