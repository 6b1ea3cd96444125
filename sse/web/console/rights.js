// Says in words who this visitor is, and what they may do.

import { ask } from "./api.js";
import { token } from "./token.js";

const ACTIONS = { subscribe: "Read", publish: "Publish and close", manage: "List, erase, end streams" };

// "token:alice" → "with the token of alice". These names are the server's own, for its logs.
function by(subject) {
  const [, kind, rest] = /^([a-z-]+)[:#]?(.*)$/.exec(subject);
  if (kind === "address") return "without a key or token";
  if (kind === "token") return subject.startsWith("token:") ? `with the token of ${rest}` : "with this token";
  return kind === "app" ? `as ${rest}, says the app` : "with the publish key";
}

function line(action, { allowed, as, until, missing }) {
  const made = document.createElement("li");
  made.className = allowed ? "yes" : "no";
  const end = until ? `, until ${new Date(until * 1000).toLocaleString()}` : "";
  made.textContent = allowed ? `${ACTIONS[action]}: yes, ${by(as)}${end}` : `${ACTIONS[action]}: no. ${missing[0].toUpperCase()}${missing.slice(1)}`;
  return made;
}

// What the token says of itself: its lists, by a payload that the page has not verified. "" if it is no token.
function claims() {
  try {
    const part = token().split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(part), (char) => char.charCodeAt(0));
    const { sse = {} } = JSON.parse(new TextDecoder().decode(bytes));
    const list = (names) => (Array.isArray(names) && names.length ? names.join(" ") : "nothing");
    return `The token covers, to read: ${list(sse.subscribe)}; to publish: ${list(sse.publish)}; to manage: ${list(sse.manage)}.`;
  } catch {
    return "";
  }
}

// Show the rights for a channel or pattern, and return what is allowed, by action. Raises Refused.
export async function showRights(list, note, channel) {
  const told = await ask("GET", new URL("./console/rights", document.baseURI), { channel });
  list.replaceChildren(...Object.keys(ACTIONS).map((action) => line(action, told[action])));
  note.textContent = claims();
  return Object.fromEntries(Object.keys(ACTIONS).map((action) => [action, told[action].allowed]));
}
