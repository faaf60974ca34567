// How the output depends on one feature: density as a picture, a sentence, and a table with the same numbers.

import { h } from "./dom.js";
import { foreign, table } from "./parts.js";
import { exact, number, t, tell } from "./words.js";

let chosen = null;
let found = null;

async function load(state) {
  try {
    const answer = await fetch(`/api/v1/model/dependence/${chosen}`);
    found = await answer.json();
  } catch {
    found = { error: { code: "error.unreachable", values: {}, text: "" } };
  }
  state.redraw();
}

export function dependence(features, state) {
  if (!features.length) return h("p", { class: "empty" }, t("model.no_reasons"));
  if (!features.some((each) => each.column === chosen)) chosen = features[0].column;
  return [
    h("form", { class: "filters", key: "choose", onsubmit: (event) => { event.preventDefault(); load(state); } },
      h("label", {}, t("word.feature"), " ", h("select", { class: "feature", onchange: (event) => { chosen = Number(event.target.value); } }, features.map((each) => h("option", { key: String(each.column), value: String(each.column), selected: each.column === chosen }, each.feature)))),
      h("button", { type: "submit" }, t("dependence.show"))),
    h("div", { key: "shown" }, found ? shown(found) : h("p", { class: "quiet" }, t("dependence.note"))),
  ];
}

function shown(told) {
  if (told.error) return h("p", { class: "empty" }, tell(told.error));
  if (!told.steps.length) return h("p", { class: "empty" }, tell(told.summary[0]));
  return [
    h("p", {}, tell(told.summary[0])),
    h("p", { class: "quiet" }, t("dependence.how")),
    picture(told),
    h("details", {}, h("summary", {}, t("chart.table")), table(t("model.dependence"), [{ name: t("word.value"), head: true }, { name: t("word.records"), figure: true }, { name: t("dependence.mean"), figure: true }, { name: t("dependence.lowest"), figure: true }, { name: t("dependence.highest"), figure: true }],
      told.steps.map((each, at) => ({ key: String(at), cells: [foreign(value(each)), number(each.records), signed(each.mean), signed(each.lowest), signed(each.highest)] })))),
  ];
}

function picture(told) {
  const { steps, low, high } = told;
  const most = Math.max(...steps.flatMap((each) => each.counts)) || 1;
  const across = (amount) => (high > low ? `${(((high - amount) / (high - low)) * 100).toFixed(1)}%` : "50%");
  return h("div", { class: "density", "aria-hidden": "true" },
    h("div", { class: "scale" }, h("span", {}, signed(high)), h("span", {}, signed(low))),
    h("div", { class: "field", style: { "grid-template-columns": `repeat(${steps.length}, 1fr)` } },
      low < 0 && high > 0 ? h("i", { class: "zero", key: "zero", style: { top: across(0) } }) : null,
      steps.map((each, at) => h("div", { key: String(at), title: `${value(each)}: ${number(each.records)}, ${signed(each.mean)}` },
        [...each.counts].reverse().map((count, row) => h("span", { key: String(row), style: { opacity: count ? (0.15 + 0.85 * Math.sqrt(count / most)).toFixed(2) : "0" } })),
        h("b", { key: "mean", style: { top: across(each.mean) } })))),
    h("div", { class: "scale" }),
    h("div", { class: "between" }, h("span", {}, value(steps[0])), h("span", {}, value(steps[steps.length - 1]))));
}

function value(step) {
  if (step.missing) return t("dependence.missing");
  if (step.category !== null) return step.category;
  return step.from === step.to ? exact(step.from) : `${end(step.from)} – ${end(step.to)}`;
}

function end(amount) {
  return amount === null ? "∞" : number(Number(amount.toPrecision(4)));
}

function signed(amount) {
  const shown = number(Number(Math.abs(amount).toPrecision(3)));
  return amount > 0 ? `▲ +${shown}` : amount < 0 ? `▼ −${shown}` : shown;
}
