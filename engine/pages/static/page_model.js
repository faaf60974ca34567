import { dependence } from "./dependence.js";
import { h } from "./dom.js";
import { graph } from "./graph.js";
import { bar, facts, foreign, section, sentences, table } from "./parts.js";
import { duration, exact, named, number, t, tell } from "./words.js";

let wanted = 0;
let opened = null;
let every = null; // all features, once they were asked for

async function open(number_, state) {
  wanted = number_;
  try {
    const answer = await fetch(`/api/v1/model/trees/${wanted}`);
    opened = await answer.json();
  } catch {
    opened = { error: { code: "error.unreachable", values: {}, text: "" } };
  }
  state.redraw();
}

async function openFeatures(state) {
  try {
    every = (await (await fetch("/api/v1/model")).json()).features;
  } catch {
    every = null; // the button stays, to try again
  }
  state.redraw();
}

export function show(page, state) {
  if (!page.known) return sentences(page.summary);
  const { model, importance, scores } = page;
  const features = every || page.features;
  return [
    sentences(page.summary),
    section(t("word.model"), facts([
      [t("word.model"), foreign(`${model.name} ${model.version}`)], [t("word.runtime"), model.runtime, tell(model.runtime_said)], [t("word.device"), model.device],
      [t("word.features"), number(page.features_total)], [t("word.classes"), page.classes.length ? foreign(page.classes.join(", ")) : t("word.none")], [t("word.digest"), h("code", {}, model.digest)],
    ])),
    section(t("model.importance"), strengths(importance)),
    section(t("model.dependence"), dependence(importance.features, state)),
    section(t("model.scores"), distribution(scores)),
    page.trees ? section(t("model.tree"), chooser(page, state), opened ? tree(opened) : h("p", { class: "quiet" }, t("model.tree_note"))) : null,
    page.graph ? section(t("model.graph_title"), graph(state)) : null,
    h("div", { class: "pair", key: "pair" },
      section(t("model.warmup"), table(t("model.warmup"), [{ name: t("model.rows"), head: true, figure: true }, { name: t("word.duration"), figure: true }, { name: t("model.each"), figure: true }], page.warmup.map((each) => ({ key: String(each.rows), cells: [number(each.rows), duration(each.ms / 1000), duration(each.ms / 1000 / each.rows)] })))),
      section(t("record.outputs"), table(t("record.outputs"), [{ name: t("word.output"), head: true }, { name: t("model.width"), figure: true }, { name: t("model.meaning") }], page.outputs.map((each) => ({ key: each.output, cells: [foreign(each.output), number(each.width), named("space", each.meaning)] }))))),
    section(t("word.features"), table(t("word.features"), [{ name: t("word.feature"), head: true }, { name: t("word.field") }, { name: t("word.type") }, { name: t("model.missing") }], features.map((each) => ({ key: each.feature, cells: [foreign(each.feature), foreign(each.field), each.kind === "category" ? t("model.categories", { count: each.categories }) : named("type", each.kind), [missing(each.missing), each.sensitive ? ` · ${t("word.masked")}` : ""]] }))),
      features.length < page.features_total && !every ? h("p", {}, t("record.first", { shown: features.length, count: page.features_total }), " ", h("button", { type: "button", onclick: () => openFeatures(state) }, t("record.all", { count: page.features_total }))) : null),
  ];
}

function missing(policy) {
  return typeof policy === "number" ? exact(policy) : t(`missing.${policy}`);
}

function strengths(importance) {
  if (!importance.features.length) return h("p", { class: "empty" }, t("model.no_reasons"));
  const most = Math.max(...importance.features.map((each) => Math.max(each.strength, each.before || 0, each.background || 0))) || 1;
  return [
    h("p", { class: "quiet" }, t("model.importance_note", { records: importance.records, span: duration(importance.span_s), before: importance.records_before, space: importance.space ? named("space", importance.space) : "—" })),
    h("p", { class: "quiet" }, t(`model.background_${importance.background}`, { rows: importance.background_rows })),
    table(t("model.importance"), [{ name: t("word.feature"), head: true }, { name: t("model.lately") }, { name: t("model.lately_figure"), figure: true }, { name: t("model.before"), figure: true }, { name: t("model.changed"), figure: true }, { name: t("model.background"), figure: true }, { name: t("model.changed_background"), figure: true }], importance.features.map((each) => ({
      key: each.feature,
      cells: [foreign(each.feature), bar(each.strength / most, "strength"), number(each.strength), number(each.before), changed(each.strength, each.before), number(each.background), changed(each.strength, each.background)],
    }))),
    importance.others ? h("p", { class: "quiet" }, t("model.others", { others: importance.others })) : null,
  ];
}

function changed(strength, before) {
  if (before === null || before === 0) return "—";
  const share = strength / before - 1;
  if (Math.abs(share) < 0.05) return t("trend.steady");
  return `${share > 0 ? "▲ +" : "▼ −"}${number(Math.round(Math.abs(share) * 100))} %`;
}

function distribution(scores) {
  if (!scores) return h("p", { class: "empty" }, t("model.no_scores"));
  const step = (scores.high - scores.low) / scores.counts.length;
  const most = Math.max(...scores.counts) || 1;
  const peak = scores.counts.indexOf(most);
  const range = (at) => `${number(round(scores.low + at * step))} – ${number(round(scores.low + (at + 1) * step))}`;
  return [
    h("p", { class: "quiet" }, t("model.scores_note", { output: scores.output, records: scores.records, range: range(peak), count: most })),
    h("div", { class: "histogram", "aria-hidden": "true" }, scores.counts.map((count, at) => h("span", { key: String(at), style: { height: `${Math.max((count / most) * 100, count ? 2 : 0).toFixed(1)}%` }, title: `${range(at)}: ${number(count)}` }))),
    h("div", { class: "between" }, h("span", {}, number(scores.low)), h("span", {}, number(scores.high))),
    h("details", {}, h("summary", {}, t("chart.table")), table(t("model.scores"), [{ name: t("word.score"), head: true }, { name: t("word.records"), figure: true }], scores.counts.map((count, at) => ({ key: String(at), cells: [range(at), number(count)] })))),
  ];
}

function round(value) {
  return Number(value.toPrecision(4));
}

function chooser(page, state) {
  return h("form", { class: "filters open-tree", onsubmit: (event) => { event.preventDefault(); open(wanted, state); } },
    h("label", {}, t("model.tree_number", { last: page.trees.trees - 1 }), " ", h("input", { type: "number", min: "0", max: page.trees.trees - 1, step: "1", value: wanted, oninput: (event) => { wanted = Math.max(0, Math.min(page.trees.trees - 1, Math.floor(Number(event.target.value) || 0))); } })),
    h("button", { type: "submit" }, t("model.open_tree")));
}

function tree(found) {
  if (found.error) return h("p", { class: "empty" }, tell(found.error));
  const children = new Map();
  for (const node of found.nodes) {
    if (!children.has(node.parent)) children.set(node.parent, []);
    children.get(node.parent).push(node);
  }
  const line = (node) => h("li", { key: String(node.node) },
    node.branch === "root" ? null : h("span", { class: "branch" }, t(`branch.${node.branch}`)),
    node.test === null ? h("span", { class: "leaf" }, `${t("model.leaf")} ${node.values.map(exact).join(", ")}`) : tell(node.said),
    node.cover === null ? null : h("span", { class: "quiet" }, ` ${t("model.cover", { cover: node.cover })}`),
    children.has(node.node) ? h("ul", {}, children.get(node.node).map(line)) : null);
  return [
    h("p", { class: "quiet" }, t("model.tree_shown", { tree: found.tree, shown: found.nodes.length, nodes: found.nodes_total })),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("model.tree") }, h("ul", { class: "tree" }, line(found.nodes[0]))),
  ];
}
