// What several pages show: figures, tables, sentences, changes, workers.

import { h } from "./dom.js";
import { clock, duration, moment, named, number, percent, t, tell, whole } from "./words.js";

export function section(title, ...children) {
  return h("section", { key: title }, h("h2", {}, title), children);
}

export function sentences(list) {
  return h("div", { class: "sentences" }, list.map((each) => h("p", { key: each.code }, tell(each))));
}

export function figures(list) {
  return h("dl", { class: "figures" }, list.map(([name, value, note]) => h("div", { key: name }, h("dt", {}, name), h("dd", {}, value, note ? h("span", { class: "quiet" }, note) : null))));
}

export function facts(list) {
  return h("dl", { class: "facts" }, list.map(([name, value, note]) => h("div", { key: name }, h("dt", {}, name), h("dd", {}, value, note ? h("span", { class: "quiet" }, ` ${note}`) : null))));
}

export function when(ms) {
  return h("span", { class: "when", title: moment(ms) }, clock(ms));
}

// columns: [{name, figure, head}], rows: [{key, cells}]; an empty table says so. The roles are for narrow screens, where it is laid out as a list.
export function table(caption, columns, rows, empty) {
  if (!rows.length) return h("p", { class: "empty" }, empty || t("word.none"));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", { class: columns.length > 2 && !columns.every((each) => each.figure) ? "many" : null, role: "table" }, h("caption", { class: "hidden" }, caption),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, columns.map((each) => h("th", { scope: "col", role: "columnheader", class: each.figure ? "figure" : "" }, each.name)))),
      h("tbody", { role: "rowgroup" }, rows.map((row) => h("tr", { key: row.key, role: "row" }, row.cells.map((cell, at) => columns[at].head
        ? h("th", { scope: "row", role: "rowheader", class: columns[at].figure ? "figure" : "" }, cell)
        : h("td", { role: "cell", "data-name": columns[at].name, class: columns[at].figure ? "figure" : "" }, h("div", {}, cell))))))));
}

// A link to a record by its place.
export function link(each) {
  return h("a", { class: "when", href: `/records/${encodeURIComponent(each.topic)}/${each.partition}/${each.offset}` }, t("records.place", { partition: String(each.partition), offset: String(each.offset) }));
}

export function foreign(text) {
  return h("bdi", {}, typeof text === "string" ? whole(text) : text);
}

// Where a value that could not be decoded stops being readable.
export function stopsAt(stops) {
  return t(stops.field ? "record.stops_at" : "record.stops", { field: stops.field, byte: stops.byte, bytes: stops.bytes });
}

export function bar(share, className) {
  const width = share === null || share === undefined ? 0 : Math.max(0, Math.min(1, share));
  return h("span", { class: `bar ${className || ""}`, "aria-hidden": "true" }, h("span", { style: { width: `${(width * 100).toFixed(1)}%` } }));
}

export function changes(list) {
  if (!list.length) return h("p", { class: "empty" }, t("changes.none"));
  return h("ol", { class: "changes" }, [...list].reverse().map((each) => h("li", { key: `${each.at_ms} ${each.worker} ${each.kind} ${each.text}` },
    h("time", { datetime: new Date(each.at_ms).toISOString(), title: moment(each.at_ms) }, clock(each.at_ms)),
    h("span", { class: "kind" }, named("kind", each.kind)),
    h("span", { class: "quiet" }, each.worker === "supervisor" ? t("word.supervisor") : t("word.worker_number", { worker: each.worker })),
    h("span", {}, tell(each.said)))));
}

export function workers(list) {
  const columns = [
    { name: t("word.worker"), head: true }, { name: t("word.state") }, { name: t("word.records_per_s"), figure: true }, { name: t("word.capacity"), figure: true },
    { name: t("word.busy"), figure: true }, { name: t("word.blocked"), figure: true }, { name: t("word.idle"), figure: true }, { name: t("word.partitions"), figure: true },
  ];
  return table(t("word.workers"), columns, list.map((each) => ({
    key: each.slot,
    cells: [each.slot, [h("span", { class: each.ready ? "good" : "bad", "aria-hidden": "true" }, each.ready ? "● " : "▲ "), named("state", each.state), h("span", { class: "quiet" }, " ", tell(each.reason_said))],
      number(each.records_per_s === null ? null : Math.round(each.records_per_s * 10) / 10), number(each.capacity_records_per_s), percent(each.busy), percent(each.blocked), percent(each.idle), number(each.partitions)],
  })), t("workers.none"));
}

// Which way a number moved the output: by shape, sign and word, and by colour besides.
export function reason(each) {
  const up = each.attribution >= 0;
  return h("span", { class: `reason ${up ? "up" : "down"}` }, h("span", { "aria-hidden": "true" }, up ? "▲ " : "▼ "), h("bdi", {}, named_value(each)), ` ${t(up ? "reason.word_raised" : "reason.word_lowered", { amount: Math.abs(each.attribution) })}`);
}

export function named_value(each) {
  if (each.masked) return t("reason.name_masked", { feature: each.feature });
  if (each.value === null) return t("reason.name_missing", { feature: each.feature });
  return `${whole(each.feature)} = ${number(each.value)}`;
}

export { duration };
