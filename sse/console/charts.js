// Small live charts, in a few lines of SVG.

const POINTS = 60;

export class Chart {
  constructor(parent, name, unit, format) {
    this.format = format;
    this.values = [];
    const box = document.createElement("div");
    box.className = "chart";
    box.innerHTML = `<div class="name"></div><div class="value"><span>–</span><small></small></div>
      <svg viewBox="0 0 ${POINTS} 34" preserveAspectRatio="none" aria-hidden="true"><path class="area"/><path class="linear"/></svg>`;
    box.querySelector(".name").textContent = name;
    box.querySelector("small").textContent = unit;
    [this.text, this.area, this.linear] = ["span", ".area", ".linear"].map((part) => box.querySelector(part));
    parent.append(box);
  }

  push(value) {
    if (typeof value !== "number" || !Number.isFinite(value)) return;
    this.values.push(value);
    if (this.values.length > POINTS) this.values.shift();
    this.text.textContent = this.format(value);
    const top = Math.max(...this.values) || 1;
    const start = POINTS - this.values.length;
    const line = this.values.map((v, i) => `${i ? "L" : "M"}${start + i} ${(31 - (v / top) * 28).toFixed(1)}`).join("");
    this.linear.setAttribute("d", line);
    this.area.setAttribute("d", `${line}L${POINTS - 1} 34L${start} 34Z`);
  }
}

export const count = (value) =>
  value >= 1e6 ? `${(value / 1e6).toFixed(1)}M` : value >= 1e4 ? `${(value / 1e3).toFixed(0)}k` : value.toFixed(0);

export const seconds = (value) =>
  value < 0.001 ? `${(value * 1e6).toFixed(0)} µs` : value < 1 ? `${(value * 1e3).toFixed(value < 0.01 ? 1 : 0)} ms` : `${value.toFixed(1)} s`;
