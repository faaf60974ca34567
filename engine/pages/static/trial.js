// A record tried again: with one value changed, with another bundle; what it says then, beside what it said before.

import { h } from "./dom.js";
import { foreign, sentences, table } from "./parts.js";
import { acting, ask } from "./asking.js";
import { exact, number, signed, t } from "./words.js";

const tries = 60;
let found = null;
let fault = null;
let asking = false;
let column = null;
let value = "";
let bundle = "served";

async function run(state, change) {
  if (asking) return;
  const [, topic, partition, offset] = state.place;
  asking = true;
  fault = null;
  state.redraw();
  for (let at = 0; at < tries; at += 1) {
    const answer = await ask("trial", { topic, partition: Number(partition), offset: Number(offset), bundle, ...change });
    if (answer.error) fault = answer.error;
    else found = answer;
    state.redraw();
    if (answer.error || !["starting", "busy"].includes(answer.state)) break;
    await new Promise((done) => setTimeout(done, 500));
  }
  asking = false;
  if (found && column === null) column = (found.choices.find((each) => !each.masked) || { column: null }).column;
  state.redraw();
}

export function trial(record, state) {
  const choices = found ? found.choices : [];
  const chosen = choices.find((each) => each.column === column);
  return acting("trial", t("trial.title"), state, (token) => h("div", { class: "trial" },
    h("p", { class: "quiet" }, t("trial.note")),
    h("form", { class: "filters", key: "again", onsubmit: (event) => { event.preventDefault(); run(state, {}); } },
      found && found.bundles.length > 1 ? choose(t("trial.bundle"), "bundle", bundle, found.bundles.map((each) => [each, each === "served" ? t("trial.bundle_served") : each]), (to) => { bundle = to; state.redraw(); }) : null,
      h("button", { type: "submit", "aria-disabled": String(asking) }, t("trial.again")), token),
    chosen ? h("form", { class: "filters", key: "change", onsubmit: (event) => { event.preventDefault(); run(state, { column, value: typed(chosen) }); } },
      choose(t("trial.feature"), "feature", String(column), choices.filter((each) => !each.masked).map((each) => [String(each.column), each.feature]), (to) => { column = Number(to); value = ""; state.redraw(); }),
      chosen.kind === "category"
        ? choose(t("trial.value"), "value", value, [["", t("word.missing")], ...chosen.categories.map((each) => [each, each])], (to) => { value = to; state.redraw(); })
        : h("label", { key: "value" }, t("trial.value"), " ", h("input", { type: "text", inputmode: "decimal", autocomplete: "off", maxlength: "100", value, oninput: (event) => { value = event.target.value; } })),
      h("button", { type: "submit", "aria-disabled": String(asking) }, t("trial.try")),
      h("p", { class: "quiet" }, now(chosen), chosen.kind === "category" ? null : ` · ${t("trial.missing_too")}`)) : null,
    h("div", { class: "answer", key: "answer", role: "status" }, asking ? h("p", { class: "quiet" }, t("trial.asking")) : null, fault ? sentences([fault]) : null, found ? sentences(found.summary) : null),
    found && !fault ? result(found) : null));
}

// Numbers go as numbers; what is none goes as it was typed, and the answer says what it would have been rejected for.
function typed(chosen) {
  const text = value.trim();
  if (text === "") return null;
  const as = Number(text);
  return chosen.kind !== "category" && Number.isFinite(as) ? as : value;
}

function choose(label, key, chosen, options, choosing) {
  return h("label", { key }, label, " ", h("select", { onchange: (event) => choosing(event.target.value) }, options.map(([to, text]) => h("option", { key: to, value: to, selected: to === chosen }, text))));
}

function now(chosen) {
  const side = found.changed ? found.before : found.after || found.before;
  const feature = side && side.features[chosen.column];
  return t("trial.now", { value: feature && feature.value !== null ? exact(feature.value) : t("word.missing") });
}

function result(shown) {
  const names = shown.changed ? [t("trial.before"), t("trial.after")] : [t("trial.streamed"), t("trial.again_column")];
  const columns = [{ name: t("word.output"), head: true }, { name: names[0], figure: true }, { name: names[1], figure: true }, { name: t("trial.difference"), figure: true }];
  const alone = shown.after && !shown.outputs.length ? shown.after.outputs.flatMap((each) => each.names.map((name, at) => ({ name, before: null, after: each.values[at], difference: null }))) : [];
  const outputs = [...shown.outputs, ...alone];
  return [
    shown.model && shown.took_ms !== null ? h("p", { class: "quiet", key: "took" }, t("trial.took", { took: shown.took_ms, name: shown.model.name, version: shown.model.version })) : null,
    outputs.length ? h("div", { key: "outputs" }, h("h3", {}, t("trial.outputs")), table(t("trial.outputs"), columns, outputs.map((each) => ({ key: each.name, cells: [foreign(each.name), exact(each.before), exact(each.after), difference(each.difference)] })))) : null,
    shown.before && shown.after && shown.after.outputs.length ? h("div", { key: "reasons" }, h("h3", {}, t("trial.reasons")), shown.reasons.length
      ? table(t("trial.reasons"), [{ name: t("word.feature"), head: true }, ...columns.slice(1)], shown.reasons.slice(0, 50).map((each) => ({ key: each.feature, cells: [foreign(each.masked ? t("reason.name_masked", { feature: each.feature }) : each.feature), number(each.before), number(each.after), difference(each.difference)] })))
      : h("p", { class: "empty" }, t("trial.no_reasons"))) : null,
  ];
}

function difference(by) {
  if (by === null) return "—";
  if (by === 0) return "0";
  const digits = Math.max(0, Math.min(10, 2 - Math.floor(Math.log10(Math.abs(by)))));
  return h("span", { class: by > 0 ? "reason up" : "reason down" }, h("span", { "aria-hidden": "true" }, by > 0 ? "▲ " : "▼ "), signed(by, digits));
}
