// A document of /api/v1 that follows the engine: the whole once, then what changed. /api/v1/schema describes the documents.

const pointsMax = 900; // as many as the engine keeps
const retryMs = 3000;

// `show(document, state)` is called after each change; state is "live", or "lost" while the engine cannot be reached.
export function follow(page, show) {
  let known = null;
  const source = new EventSource(`/api/v1/events?page=${page}`);
  source.addEventListener("snapshot", (event) => {
    known = JSON.parse(event.data);
    show(known, "live");
  });
  source.addEventListener("change", (event) => {
    if (!known) return;
    apply(known, JSON.parse(event.data));
    show(known, "live");
  });
  source.onerror = () => {
    if (known) show(known, "lost");
    if (source.readyState === EventSource.CLOSED) setTimeout(() => follow(page, show), retryMs); // refused: no browser tries again
  };
}

function apply(known, change) {
  Object.assign(known, change.set);
  for (const [name, values] of Object.entries(change.append)) {
    const column = known.series[name];
    column.push(...values);
    if (column.length > pointsMax) column.splice(0, column.length - pointsMax);
  }
}

// What stands at a path as "latency.p99_ms", or as "partitions[].lag_s" for each item; null is what the engine does not know.
export function read(value, path) {
  const [name, ...rest] = path.split(".");
  const below = rest.join(".");
  if (name.endsWith("[]")) return value[name.slice(0, -2)].map((item) => read(item, below));
  return below ? read(value[name], below) : value[name];
}

export function shown(number, unit) {
  return number === null ? "unknown" : `${Number(number.toPrecision(3)).toLocaleString("en")} ${unit}`;
}
