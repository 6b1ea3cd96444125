// The server's clock, as far as this page knows it. Event ids are the server's times, and a browser's clock may be
// minutes off.

let skew = 0;
let exact = false;

export const now = () => Date.now() + skew;

// Learn from a time that the server has just sent, in milliseconds. rough: it is a Date header, which has only seconds.
export function learn(milliseconds, { rough = false } = {}) {
  if (!Number.isFinite(milliseconds)) return;
  const seen = milliseconds - Date.now();
  if (rough && (exact || Math.abs(seen - skew) < 2000)) return;
  exact ||= !rough;
  skew = seen;
}

// What `?since=` has for the last so many seconds ("60"), or for "earliest"; "" for "".
export const sinceOf = (choice) => (/^\d+$/.test(choice) ? String(Math.round(now() - Number(choice) * 1000)) : choice);

export const timeOf = (id) => Number(id.split("-")[0]);

export const age = (milliseconds) => {
  const seconds = (now() - milliseconds) / 1000;
  if (seconds < 1) return "now";
  if (seconds < 100) return `${seconds.toFixed(0)} s`;
  return seconds < 6000 ? `${(seconds / 60).toFixed(0)} min` : `${(seconds / 3600).toFixed(0)} h`;
};
