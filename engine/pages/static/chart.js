// Lines and stacked areas over time, as SVG in real pixels: with a cursor for the keyboard, a sentence and a table.

import { h } from "./dom.js";
import { clock, number, t } from "./words.js";

const digitWidth = 7.4; // of a tick's text
const top = 8;
let scale = 1; // what 15 px of text are here
const widths = new Map();
const cursors = new Map();
const observer = new ResizeObserver((entries) => {
  scale = parseFloat(getComputedStyle(document.documentElement).fontSize) / 15;
  for (const entry of entries) {
    const width = Math.max(Math.round(entry.contentRect.width), 120);
    if (widths.get(entry.target.__chart) !== width) {
      widths.set(entry.target.__chart, width);
      document.dispatchEvent(new Event("penstock-redraw"));
    }
  }
});

// lines: [{name, values, className, dash}], stacked: each stands on those before it. `say` writes a value.
export function chart({ id, title, sentence, times, lines, stacked, say = number, max, marks = [], level }) {
  const width = widths.get(id) || 560;
  const empty = times.length < 2 || lines.reduce((sum, line) => sum + line.values.filter((value) => value !== null).length, 0) < 2;
  const body = empty ? h("p", { class: "empty" }, t("chart.empty")) : drawing({ id, title, times, lines, stacked, say, max, marks, level, width });
  return h(
    "figure", { class: "chart", key: id },
    h("figcaption", {}, h("h3", {}, title), h("p", { class: "quiet" }, sentence)),
    h("div", { class: "plot", ref: (node) => watch(node, id) }, body),
    h("div", { class: "legend" }, lines.map((line) => h("span", { key: line.name }, h("span", { class: `swatch ${line.className}`, "aria-hidden": "true" }), line.name)),
      level && h("span", { key: "level" }, h("span", { class: "swatch level", "aria-hidden": "true" }), level.name)),
    h("details", {}, h("summary", {}, t("chart.table")), empty ? h("p", { class: "quiet" }, t("chart.empty")) : table(title, times, lines, say)),
  );
}

function watch(node, id) {
  if (node.__chart) return;
  node.__chart = id;
  observer.observe(node);
}

function drawing(asked) {
  const { id, title, stacked, say, max, marks, level, width } = asked;
  const begun = asked.times.findIndex((_, at) => asked.lines.some((line) => line.values[at] !== null));
  const times = asked.times.slice(begun);
  const lines = asked.lines.map((line) => ({ ...line, values: line.values.slice(begun) }));
  const first = times[0];
  const last = times[times.length - 1];
  const highest = max || nice(Math.max(most(times, lines, stacked), level ? level.value : 0) || 1);
  const height = 138 * scale;
  const bottom = 26 * scale;
  const left = Math.max(46, say(highest).length * digitWidth + 8) * scale;
  const x = (time) => left + ((time - first) / Math.max(last - first, 1)) * (width - left - 8);
  const y = (value) => top + (1 - Math.min(value / highest, 1)) * (height - top - bottom);
  const at = Math.min(cursors.has(id) ? cursors.get(id) : times.length - 1, times.length - 1);
  const floor = stacked ? times.map(() => 0) : null;
  const shapes = lines.map((line) => (stacked ? h("path", { class: `area ${line.className}`, d: area(times, line.values, floor, x, y) }) : h("path", { class: `line ${line.className}`, d: path(times, line.values, x, y) })));
  const read = `${clock(times[at])} — ${lines.map((line) => `${line.name} ${say(line.values[at])}`).join(", ")}`;
  const move = (to) => {
    cursors.set(id, Math.max(0, Math.min(times.length - 1, to)));
    document.dispatchEvent(new Event("penstock-redraw"));
  };
  return [
    h("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true",
      onpointermove: (event) => move(nearest(times, first + ((event.offsetX - left) / Math.max(width - left - 8, 1)) * (last - first))),
      onpointerleave: () => { cursors.delete(id); document.dispatchEvent(new Event("penstock-redraw")); } },
      [0, highest / 2, highest].map((value) => h("line", { class: "grid", x1: left, x2: width - 8, y1: y(value), y2: y(value) })),
      shapes,
      level && h("line", { class: "level", x1: left, x2: width - 8, y1: y(level.value), y2: y(level.value) }),
      marks.filter((mark) => mark >= first && mark <= last).map((mark) => h("path", { class: "mark", d: `M${x(mark)} ${height - bottom}l-4 7h8z` })),
      cursors.has(id) && h("line", { class: "cursor", x1: x(times[at]), x2: x(times[at]), y1: top, y2: height - bottom })),
    h("span", { class: "tick", key: "high", style: { left: "0", top: `${top - 8 * scale}px` } }, say(highest)),
    h("span", { class: "tick", key: "low", style: { left: "0", top: `${height - bottom - 12 * scale}px` } }, say(0)),
    h("span", { class: "tick", key: "begin", style: { left: `${left}px`, top: `${height - bottom + 8}px` } }, clock(first)),
    h("span", { class: "tick", key: "end", style: { right: "8px", top: `${height - bottom + 8}px` } }, clock(last)),
    h("div", { class: "reader", tabindex: "0", role: "slider", "aria-label": `${title}: ${t("chart.cursor")}`, "aria-valuemin": "0", "aria-valuemax": times.length - 1, "aria-valuenow": at, "aria-valuetext": read,
      onkeydown: (event) => {
        const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30 };
        if (event.key in steps) move(at + steps[event.key]);
        else if (event.key === "Home") move(0);
        else if (event.key === "End") move(times.length - 1);
        else if (event.key === "Escape") { cursors.delete(id); document.dispatchEvent(new Event("penstock-redraw")); }
        else return;
        event.preventDefault();
      } }, read),
  ];
}

function nearest(times, wanted) {
  let best = 0;
  for (let at = 1; at < times.length; at += 1) if (Math.abs(times[at] - wanted) < Math.abs(times[best] - wanted)) best = at;
  return best;
}

function most(times, lines, stacked) {
  let highest = 0;
  for (let at = 0; at < times.length; at += 1) {
    let sum = 0;
    for (const line of lines) {
      const value = line.values[at] || 0;
      sum = stacked ? sum + value : Math.max(sum, value);
    }
    if (sum > highest) highest = sum;
  }
  return highest;
}

// To a tenth of a pixel.
function short(value) {
  return Math.round(value * 10) / 10;
}

function nice(value) {
  const step = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 7.5, 10].map((factor) => factor * step).find((each) => each >= value * 1.02) || 10 * step;
}

// Of many points in one column of pixels the first, the lowest, the highest and the last are drawn: the same picture.
function path(times, values, x, y) {
  let text = "";
  let pen = "M";
  let column = null;
  let held = [];
  const draw = () => {
    const [first, low, high, last] = held;
    for (const at of new Set(low < high ? [first, low, high, last] : [first, high, low, last])) {
      text += `${pen}${short(x(times[at]))} ${short(y(values[at]))}`;
      pen = "L";
    }
    held = [];
  };
  for (let at = 0; at < times.length; at += 1) {
    const value = values[at];
    const here = value === null ? null : Math.floor(x(times[at]));
    if (here !== column && held.length) draw();
    column = here;
    if (value === null) pen = "M";
    else if (!held.length) held = [at, at, at, at];
    else {
      held[3] = at;
      if (value < values[held[1]]) held[1] = at;
      if (value > values[held[2]]) held[2] = at;
    }
  }
  if (held.length) draw();
  return text;
}

function area(times, values, floor, x, y) {
  let up = "";
  const back = [];
  times.forEach((time, at) => {
    const low = floor[at];
    const high = low + (values[at] || 0);
    floor[at] = high;
    const across = short(x(time));
    up += `${at ? "L" : "M"}${across} ${short(y(high))}`;
    back.push(`L${across} ${short(y(low))}`);
  });
  return `${up}${back.reverse().join("")}Z`;
}

function table(title, times, lines, say) {
  const step = Math.max(1, Math.floor(times.length / 30));
  const places = times.map((_, at) => at).filter((at) => (times.length - 1 - at) % step === 0).reverse();
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title },
    h("table", {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, t("word.time")), lines.map((line) => h("th", { scope: "col", class: "figure" }, line.name)))),
      h("tbody", {}, places.map((at) => h("tr", { key: times[at] }, h("th", { scope: "row" }, clock(times[at])), lines.map((line) => h("td", { class: "figure" }, say(line.values[at]))))))));
}
