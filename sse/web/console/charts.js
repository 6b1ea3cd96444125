// Small live charts, drawn as SVG.

const POINTS = 60;
const SVG = "http://www.w3.org/2000/svg";

function make(parent, name, attributes = {}, namespace = "http://www.w3.org/1999/xhtml") {
  const made = document.createElementNS(namespace, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.append(made);
  return made;
}

export class Chart {
  // format: turns a value into text.
  constructor(parent, name, unit, format) {
    this.format = format;
    this.values = [];
    const box = make(parent, "div", { class: "chart" });
    make(box, "div", { class: "name" }).textContent = name;
    const value = make(box, "div", { class: "value" });
    this.text = make(value, "span");
    this.text.textContent = "–";
    make(value, "small").textContent = unit;
    const picture = make(box, "svg", { viewBox: `0 0 ${POINTS - 1} 34`, preserveAspectRatio: "none", "aria-hidden": "true" }, SVG);
    make(picture, "path", { class: "base", d: `M0 33.5H${POINTS}` }, SVG);
    this.area = make(picture, "path", { class: "area" }, SVG);
    this.line = make(picture, "path", { class: "line" }, SVG);
  }

  // Show that the value is unknown now; the line stays.
  unknown() {
    this.text.textContent = "–";
  }

  push(value) {
    const known = typeof value === "number" && Number.isFinite(value);
    this.values.push(known ? value : null);
    if (this.values.length > POINTS) this.values.shift();
    // A second without a measurement leaves a gap in the line; the figure keeps the last value.
    if (known) this.text.textContent = this.format(value);
    const top = Math.max(...this.values) || 1;
    const start = POINTS - this.values.length;
    let line = "";
    let area = "";
    let begun = -1;
    this.values.forEach((v, i) => {
      const x = start + i;
      if (v !== null) {
        line += `${begun < 0 ? "M" : "L"}${x} ${(32 - (v / top) * 29).toFixed(1)}`;
        if (begun < 0) begun = line.lastIndexOf("M");
      }
      const ends = v === null ? x - 1 : i === this.values.length - 1 ? x : -1;
      if (begun >= 0 && ends >= 0) {
        if (!line.includes("L", begun)) line += `L${ends + 0.5} ${line.split(" ").at(-1)}`; // a lone point
        const part = line.slice(begun);
        area += `${part}L${ends} 34L${part.slice(1).split(" ")[0]} 34Z`;
        begun = -1;
      }
    });
    this.line.setAttribute("d", line);
    this.area.setAttribute("d", area);
  }
}

export const count = (value) => {
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)}M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(0)}k`;
  return value.toFixed(value > 0 && value < 10 && value % 1 ? 1 : 0);
};

export const seconds = (value) => {
  if (typeof value !== "number") return "–";
  if (value < 0.001) return `${(value * 1e6).toFixed(0)} µs`;
  return value < 1 ? `${(value * 1e3).toFixed(value < 0.01 ? 1 : 0)} ms` : `${value.toFixed(1)} s`;
};
