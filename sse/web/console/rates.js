// Rates from counters that are reported once a second.
//
// Counters restart from zero with their process, and another pod has counters of its own. A difference across such a
// break is not a rate: it may be negative, or in the millions.

const OVER = 3; // reports to average over, because the workers count once a second but not in step

export class Rates {
  constructor(names) {
    this.names = names;
    this.reports = [];
  }

  // Call it after a lost connection, because another server may answer.
  forget() {
    this.reports = [];
  }

  // report: the counters by name, `at` (milliseconds) and `from` (whose counters they are).
  // Returns each name's rate (1/s), or null as long as it is unknown.
  add(report) {
    const last = this.reports.at(-1);
    const continues = last && report.from === last.from && report.at > last.at && this.names.every((name) => report[name] >= last[name]);
    if (!continues) this.reports = [];
    const first = this.reports[0];
    const rate = (name) => (first ? ((report[name] - first[name]) * 1000) / (report.at - first.at) : null);
    const rates = Object.fromEntries(this.names.map((name) => [name, rate(name)]));
    this.reports.push(report);
    if (this.reports.length > OVER) this.reports.shift();
    return rates;
  }
}
