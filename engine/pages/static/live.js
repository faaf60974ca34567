// A document that follows the engine: the whole once, then changes. Closed while the tab is hidden or the reader has paused.

const pointsMax = 900;
const recordsMax = 100;

export class Live {
  constructor(page, show) {
    this.page = page;
    this.show = show;
    this.document = null;
    this.paused = false;
    this.state = "connecting";
    this.source = null;
    document.addEventListener("visibilitychange", () => this.follow());
  }

  follow() {
    const wanted = !this.paused && !document.hidden;
    if (wanted && !this.source) this.open();
    if (!wanted && this.source) {
      this.source.close();
      this.source = null;
      this.set(this.paused ? "paused" : "connecting");
    }
  }

  pause(paused) {
    this.paused = paused;
    this.follow();
    this.set(paused ? "paused" : this.state);
  }

  open() {
    const source = new EventSource(`/api/v1/events?page=${encodeURIComponent(this.page)}`);
    this.source = source;
    source.addEventListener("snapshot", (event) => {
      this.document = JSON.parse(event.data);
      this.set("live");
    });
    source.addEventListener("change", (event) => {
      if (!this.document) return;
      apply(this.document, JSON.parse(event.data));
      this.set("live");
    });
    source.onerror = () => {
      if (this.source !== source) return;
      this.set("lost");
      if (source.readyState === EventSource.CLOSED) {
        this.source = null; // refused, not cut off: the browser will not try again by itself
        setTimeout(() => this.follow(), 3000);
      }
    };
  }

  set(state) {
    this.state = state;
    this.show();
  }
}

export function apply(document, change) {
  Object.assign(document, change.set);
  for (const [name, values] of Object.entries(change.append)) {
    const column = document.series[name];
    column.push(...values);
    if (column.length > pointsMax) column.splice(0, column.length - pointsMax);
  }
  if (change.prepend.length) document.records = [...change.prepend, ...document.records].slice(0, recordsMax);
}
