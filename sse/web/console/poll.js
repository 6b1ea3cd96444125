// A question that is repeated while the page is visible, until it is refused.

import { Refused } from "./api.js";

const EVERY = 5000; // milliseconds; the server counts listeners as often

export class Poll {
  // read: asks, and returns the answer; show: called with it; refused: called with why there is none.
  constructor(read, show, refused) {
    Object.assign(this, { read, show, refused, number: 0 });
  }

  start() {
    this.stop();
    this.turn();
  }

  // Ask now if it was asked before, even if it was refused.
  restart() {
    if (this.number) this.start();
  }

  // Also drops an answer that is under way.
  stop() {
    clearTimeout(this.timer);
    this.number += 1;
  }

  async turn() {
    const { number } = this;
    let again = true;
    try {
      const answer = document.hidden ? null : await this.read();
      if (number !== this.number) return;
      if (answer) this.show(answer);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (number !== this.number) return;
      this.refused(error.message);
      again = !error.final;
    }
    if (again) this.timer = setTimeout(() => this.turn(), EVERY);
  }
}
