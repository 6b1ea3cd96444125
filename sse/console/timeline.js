// The last minute of one stream: the connection's state as a band, and above it each event at the time when it was
// published. So a drop leaves a hole, and a resume fills it.

import { now } from "./clock.js";

const SPAN = 60_000; // milliseconds
const BAND = 6; // pixels
const COLOURS = { open: "--good", connecting: "--accent", reconnecting: "--warn" };

export class Timeline {
  constructor(canvas) {
    this.canvas = canvas;
    this.spans = [];
    this.marks = [];
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    setInterval(() => document.hidden || this.draw(), calm ? 1000 : 100);
  }

  become(state) {
    this.spans.push({ state, at: now() });
  }

  mark(at, missed) {
    this.marks.push({ at, missed });
    if (this.marks.length > 2000) this.marks.splice(0, 1000);
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
    const x = (at) => width - ((end - at) / SPAN) * width;
    paint.fillStyle = colour("--line");
    paint.fillRect(0, height - BAND, width, BAND);
    while (this.spans.length > 1 && this.spans[1].at < end - SPAN) this.spans.shift();
    this.spans.forEach(({ state, at }, i) => {
      if (!COLOURS[state]) return;
      paint.fillStyle = colour(COLOURS[state]);
      const from = Math.max(0, x(at));
      paint.fillRect(from, height - BAND, x(this.spans[i + 1]?.at ?? end) - from, BAND);
    });
    while (this.marks.length && this.marks[0].at < end - SPAN) this.marks.shift();
    for (const { at, missed } of this.marks) {
      paint.fillStyle = colour(missed ? "--warn" : "--accent");
      paint.fillRect(x(at) - 1, missed ? 2 : 8, 2, height - BAND - (missed ? 4 : 10));
    }
  }
}
