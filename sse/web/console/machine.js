// Draws the connection's state machine. The countdown changes ten times a second, so it is hidden from screen readers;
// these announce the caption, which changes with the state.

const $ = (id) => document.getElementById(id);
const FUSE = 100; // the length of the fuse around the node "reconnecting", in its own units (pathLength)

let ticking = 0;

// due: the time of the next attempt; wait: the whole delay before it. Both in milliseconds, only while reconnecting.
export function draw({ state, from, caption, due = 0, wait = 1 }) {
  clearInterval(ticking);
  $("machine").dataset.state = state;
  for (const node of document.querySelectorAll(".node")) node.classList.toggle("on", node.id === `node-${state}`);
  for (const edge of document.querySelectorAll(".edges path")) edge.classList.toggle("walked", edge.id === `edge-${from}-${state}`);
  $("machine-caption").textContent = caption;
  $("countdown").textContent = "";
  $("fuse").setAttribute("stroke-dasharray", `0 ${FUSE}`);
  if (state !== "reconnecting") return;
  const tick = () => {
    const left = Math.max(0, due - Date.now());
    $("countdown").textContent = `again in ${(left / 1000).toFixed(1)} s`;
    $("fuse").setAttribute("stroke-dasharray", `${(left / wait) * FUSE} ${FUSE}`);
  };
  tick();
  ticking = setInterval(tick, 100);
}
