// A network's layers as boxes with lines between them, and the same as a table.

import { h } from "./dom.js";
import { foreign, table } from "./parts.js";
import { number, t, tell } from "./words.js";

const drawn = 150;
const box = { width: 168, height: 44, across: 188, down: 76 };
let found = null;
let asked = false;

async function load(state) {
  asked = true;
  try {
    const answer = await fetch("/api/v1/model/graph");
    found = await answer.json();
  } catch {
    found = { error: { code: "error.unreachable", values: {}, text: "" } };
  }
  state.redraw();
}

export function graph(state) {
  if (!found) return h("form", { class: "filters open-graph", key: "open", onsubmit: (event) => { event.preventDefault(); if (!asked) load(state); } }, h("button", { type: "submit" }, t("graph.open")));
  if (found.error) return h("p", { class: "empty" }, tell(found.error));
  const nodes = found.nodes.slice(0, drawn);
  return [
    h("p", { class: "quiet", key: "note" }, t("graph.shown", { drawn: nodes.length, nodes: found.nodes_total })),
    h("div", { class: "scroll graph", key: "drawing", tabindex: "0", role: "region", "aria-label": t("graph.drawing") }, drawing(nodes, found.outputs)),
    h("details", { key: "table" }, h("summary", {}, t("chart.table")), table(t("model.graph_title"), [{ name: t("graph.node"), head: true }, { name: t("graph.operator") }, { name: t("graph.layer"), figure: true }, { name: t("graph.comes_from") }, { name: t("graph.shape") }, { name: t("graph.parameters"), figure: true }, { name: t("graph.attributes") }],
      found.nodes.map((each) => ({ key: String(each.node), cells: [foreign(`${each.node} ${each.name}`), foreign(each.operator), number(each.layer), foreign([...each.inputs, ...each.comes_from].join(", ") || "—"), foreign(each.shape || "—"), number(each.parameters), foreign(each.attributes || "—")] })))),
  ];
}

function drawing(nodes, outputs) {
  const boxes = [];
  const rows = new Map();
  const put = (key, layer, title, note) => {
    const place = rows.get(layer) || 0;
    rows.set(layer, place + 1);
    const made = { key, x: place * box.across + 8, y: layer * box.down + 8, title, note };
    boxes.push(made);
    return made;
  };
  const byNode = new Map();
  const inputs = new Map([...new Set(nodes.flatMap((each) => each.inputs))].map((name) => [name, put(`in ${name}`, 0, name, t("graph.input"))]));
  const lines = [];
  const join = (from, to) => { if (from) lines.push(`M${from.x + box.width / 2} ${from.y + box.height}C${from.x + box.width / 2} ${from.y + box.height + 20} ${to.x + box.width / 2} ${to.y - 20} ${to.x + box.width / 2} ${to.y}`); };
  for (const each of nodes) {
    const note = [each.shape, each.parameters ? t("graph.learned", { parameters: each.parameters }) : null].filter(Boolean).join(" · ");
    const made = put(`node ${each.node}`, each.layer, each.operator, note || each.name);
    byNode.set(each.node, made);
    each.inputs.forEach((name) => join(inputs.get(name), made));
    each.comes_from.forEach((from) => join(byNode.get(from), made));
  }
  const last = Math.max(0, ...nodes.map((each) => each.layer)) + 1;
  for (const each of outputs.filter((one) => byNode.has(one.comes_from))) join(byNode.get(each.comes_from), put(`out ${each.output}`, last, each.output, t("word.output")));
  const width = Math.max(...boxes.map((each) => each.x)) + box.width + 8;
  const height = (last + 1) * box.down + 8;
  return h("div", { class: "drawing", style: { width: `${width}px`, height: `${height}px` } },
    h("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, lines.map((d, at) => h("path", { key: String(at), class: "edge", d }))),
    boxes.map((each) => h("div", { class: "box", key: each.key, style: { left: `${each.x}px`, top: `${each.y}px`, width: `${box.width}px`, height: `${box.height}px` } }, h("b", {}, foreign(each.title)), h("span", { class: "quiet" }, foreign(each.note)))));
}
