// Requests to the service, with the visitor's token.

import { authorization, learnNeed } from "./token.js";

// Where the events are (SSE_URL_PREFIX); the service's other paths are beside it.
export const events = new URL(document.querySelector('meta[name="events"]').content, document.baseURI);

// The message is for the visitor. final: asking again will not help.
export class Refused extends Error {
  constructor(message, status = 0) {
    super(message);
    this.final = status >= 400 && status < 500 && status !== 429;
  }
}

// Return the answer's JSON. path: relative to `events`; need: what the answer shows the need of a token for (read, publish,
// manage), if anything; the others are the query's. Raises Refused.
export async function ask(method, path, { need = "", headers = {}, ...parameters } = {}) {
  const url = new URL(path, events);
  for (const [name, value] of Object.entries(parameters)) url.searchParams.append(name, value);
  let answer;
  let said;
  try {
    answer = await fetch(url, { method, headers: { ...authorization(), ...headers }, cache: "no-store" });
    said = await answer.json().catch(() => ({}));
  } catch {
    throw new Refused("cannot reach the server");
  }
  if (need) learnNeed(need, answer.status);
  if (!answer.ok) throw new Refused(said.detail || `refused with ${answer.status}`, answer.status);
  return said;
}

export const eventsOf = (channel) => `${events}/${encodeURIComponent(channel)}`;

export const isPattern = (channel) => channel.endsWith("*");
