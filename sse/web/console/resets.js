// What a stream-reset tells, in words. A page of history has the same reasons.

import { timeOf } from "./clock.js";

const WORDS = {
  expired: () => "Some of the events you asked for have expired. These are all that are left",
  "before-log": () => "You asked for events from before this log began. These are all that it holds",
  malformed: () => "The id to resume from is malformed. These are all events that are kept",
  unknown: () => "The id to resume from is in the future, so it is not from this log. These are all events that are kept",
  "too-far": () => "Too many events were missed to replay them all. These are the newest",
  erased: ({ channel }) => `${channel} was erased. Its earlier events are gone, here too`,
};

export function explain(reset) {
  const oldest = reset.oldest ? `, since ${new Date(timeOf(reset.oldest)).toLocaleString()}` : "";
  return reset.reason in WORDS ? `${WORDS[reset.reason](reset)}${oldest}.` : `The stream was reset: ${reset.reason}.`;
}
