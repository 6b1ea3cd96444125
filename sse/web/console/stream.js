// An event stream over fetch. It does what an EventSource does (WHATWG HTML §9.2), but also shows its state, retry time
// and last id, and can send a token as a header.

import { learn } from "./clock.js";

export class Parser {
  // onBlock: called with each block, also those without data, whose id counts as well.
  constructor(onBlock) {
    this.onBlock = onBlock;
    this.rest = "";
    this.reset();
  }

  reset() {
    this.block = { event: "", data: null, id: null, retry: null };
    this.touched = false;
  }

  push(text) {
    this.rest += text;
    let at = 0;
    const ends = /[\r\n]/g;
    for (;;) {
      ends.lastIndex = at;
      const end = ends.exec(this.rest);
      if (!end) break;
      const stop = end.index;
      // A CR at the very end may be half of a CRLF.
      if (this.rest[stop] === "\r" && stop + 1 === this.rest.length) break;
      const line = this.rest.slice(at, stop);
      at = stop + (this.rest[stop] === "\r" && this.rest[stop + 1] === "\n" ? 2 : 1);
      this.line(line);
    }
    this.rest = this.rest.slice(at);
  }

  line(line) {
    if (line === "") {
      if (this.touched) this.onBlock(this.block);
      this.reset();
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    this.touched = true;
    if (field === "data") this.block.data = this.block.data === null ? value : `${this.block.data}\n${value}`;
    else if (field === "event") this.block.event = value;
    else if (field === "id" && !value.includes("\0")) this.block.id = value;
    else if (field === "retry" && /^\d+$/.test(value)) this.block.retry = Number(value);
  }
}

// States: closed → connecting → open → reconnecting → connecting …
export class Stream extends EventTarget {
  constructor(url, headers = () => ({})) {
    super();
    this.url = url;
    this.headers = headers;
    this.state = "closed";
    this.lastId = "";
    this.retry = 3000;
    this.wanted = false;
  }

  become(state, detail = {}) {
    const from = this.state;
    this.state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: { from, state, ...detail } }));
  }

  open() {
    this.wanted = true;
    this.connect();
  }

  // status: the status of the answer that ended the stream.
  close(why = "closed", status = 0) {
    this.wanted = false;
    clearTimeout(this.timer);
    this.controller?.abort();
    this.become("closed", { why, status });
  }

  // Cut the connection as a bad network would, so that the page shows a reconnection.
  drop() {
    this.controller?.abort();
  }

  async connect() {
    this.become("connecting");
    const controller = (this.controller = new AbortController());
    const headers = { Accept: "text/event-stream", ...this.headers() };
    if (this.lastId) headers["Last-Event-ID"] = this.lastId;
    let why = "the connection ended";
    try {
      const answer = await fetch(this.url, { headers, cache: "no-store", signal: controller.signal });
      learn(Date.parse(answer.headers.get("Date")), { rough: true });
      if (answer.status === 204) {
        if (this.controller === controller) this.close("ended", answer.status);
        return;
      }
      const type = answer.headers.get("Content-Type") ?? "";
      if (answer.status !== 200 || !type.startsWith("text/event-stream")) {
        // Any other answer ends the stream for good, as it does an EventSource.
        const problem = await answer.json().catch(() => ({}));
        if (this.controller === controller) this.close(problem.detail || `the server answered ${answer.status}, ${type || "without a type"}`, answer.status);
        return;
      }
      this.become("open", { status: answer.status });
      const parser = new Parser((block) => this.take(block));
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        parser.push(value);
      }
    } catch (error) {
      why = controller.signal.aborted ? "dropped" : "the network failed";
    }
    if (!this.wanted || this.controller !== controller) return;
    this.become("reconnecting", { why, due: Date.now() + this.retry, wait: this.retry });
    this.timer = setTimeout(() => this.wanted && this.connect(), this.retry);
  }

  take(block) {
    if (block.retry !== null) this.retry = block.retry;
    if (block.id !== null) this.lastId = block.id;
    this.dispatchEvent(new CustomEvent("block", { detail: block }));
  }
}
