import { h } from "./dom.js";
import { facts, foreign, link, named_value, section, stopsAt, table, when } from "./parts.js";
import { replay } from "./replay.js";
import { trial } from "./trial.js";
import { duration, exact, fixed, moment, named, number, signed, t, tell } from "./words.js";

const rowsShown = 14;
const rowsSent = 100; // at first: a model may have thousands of features
let all = false;

export async function load(state, rows = `?rows=${rowsSent}`) {
  const [, topic, partition, offset] = state.place;
  try {
    const answer = await fetch(`/api/v1/records/${topic}/${partition}/${offset}${rows}`);
    const found = await answer.json();
    if (answer.ok) state.document = found;
    else state.fault = found.error;
  } catch {
    state.fault = { code: "error.unreachable", values: {}, text: "" };
  }
  state.redraw();
}

// How many more there are of each than were sent.
function leftOut(record) {
  return record.left_out || { features: 0, input: 0, attributions: 0, attribution: 0 };
}

function more(code, shown, left, state) {
  return left ? h("p", {}, t("record.first", { shown, count: shown + left }), " ", h("button", { type: "button", onclick: () => load(state, "") }, t(code, { count: shown + left }))) : null;
}

export function show(record, state) {
  if (!record) return [h("div", { class: "lead" }, h("p", { class: "limit" }, tell(state.fault)), h("p", {}, h("a", { href: "/records" }, t("record.back")))), state.fault.code === "record.not_held" ? trial(null, state) : null];
  const explanation = record.explanation;
  return [
    h("div", { class: "lead" },
      h("p", { class: `state ${record.outcome === "rejected" ? "away" : "running"}` }, t(`outcome.${record.outcome}`), record.label === null ? null : [": ", foreign(record.label)]),
      h("p", { class: "limit" }, sentence(record)),
      h("p", { class: "quiet" }, t("record.place", { topic: record.topic, partition: String(record.partition), offset: String(record.offset) }), " ", t("record.times", { made: record.timestamp_ms === null ? t("word.unknown") : moment(record.timestamp_ms), done: moment(record.at_ms), age: duration(record.age_ms === null ? null : record.age_ms / 1000) }))),
    explanation ? waterfall(record, state) : null,
    trial(record, state),
    record.outcome === "rejected" ? replay(state, record) : null,
    h("div", { class: "pair", key: "pair" },
      section(t("record.outputs"), record.outputs.length ? record.outputs.map((each) => table(each.output, [{ name: t("word.output"), head: true }, { name: t("word.value"), figure: true }], each.names.map((name, at) => ({ key: String(at), cells: [foreign(name), exact(each.values[at])] })))) : h("p", { class: "empty" }, t("record.no_outputs"))),
      section(t("record.spent"), table(t("record.spent"), [{ name: t("word.stage"), head: true }, { name: t("word.duration"), figure: true }], record.times.map((each) => ({ key: each.stage, cells: [named("stage", each.stage), duration(each.ms / 1000)] }))), h("p", { class: "quiet" }, t("record.batch", { rows: record.rows })))),
    section(t("record.input"),
      record.input_fault ? h("p", { class: "empty" }, tell(record.input_fault_said)) : null,
      record.input_stops ? stops(record.input_stops, record.input.length) : null,
      record.input.length ? table(t("record.input"), [{ name: t("word.field"), head: true }, { name: t("word.type") }, { name: t("word.value") }], record.input.map((each) => ({ key: each.field, cells: [foreign(each.field), named("type", each.type), text(each.shown)] }))) : null,
      more("record.all_fields", record.input.length, leftOut(record).input, state)),
    section(t("record.seen"),
      table(t("record.seen"), [{ name: t("word.feature"), head: true }, { name: t("word.value") }, { name: t("record.model_value"), figure: true }], record.features.map((each) => ({ key: each.feature, cells: [foreign(each.feature), each.masked ? t("word.masked") : each.value === null ? t("word.missing") : foreign(exact(each.value)), each.masked ? t("word.masked") : each.model_value === null ? "NaN" : exact(each.model_value)] })), t("record.no_features")),
      more("record.all", record.features.length, leftOut(record).features, state)),
    section(t("record.same_key"), record.same_key === null ? h("p", { class: "empty" }, t("record.same_key_unknown")) : table(t("record.same_key"),
      [{ name: t("word.time") }, { name: t("word.record"), head: true }, { name: t("word.outcome") }, { name: t("word.score"), figure: true }],
      record.same_key.map((each) => ({ key: `${each.partition}/${each.offset}`, cells: [when(each.at_ms), link(each), each.outcome === "rejected" ? h("span", { class: "bad" }, "▲ ", t("outcome.rejected")) : foreign(each.label === null ? t("outcome.predicted") : each.label), number(each.score)] })), t("record.same_key_none"))),
    section(t("record.lineage"), facts([
      [t("word.model"), foreign(`${record.model.name} ${record.model.version}`)],
      [t("word.digest"), h("code", {}, record.model.digest)],
      [t("word.worker"), foreign(record.worker)],
      [t("word.key"), text(record.key)],
      ...(explanation ? [[t("word.method"), named("method", explanation.method)], [t("word.background"), explanation.background ? h("code", {}, explanation.background) : t("word.none")]] : []),
    ])),
  ];
}

function sentence(record) {
  const explanation = record.explanation;
  if (record.sentence.code !== "record.reasons" || !explanation) return tell(record.sentence);
  // The amounts are the rows' own, digit for digit: who reads both shall find the same.
  const { rows, digits, base, total } = steps(explanation, rowsShown, leftOut(record));
  const reasons = rows.filter((row) => row.of).slice(0, 3).map((row) => t(`reason.${row.of.masked ? "masked_" : row.of.value === null ? "missing_" : ""}${row.step >= 0 ? "raised" : "lowered"}`, { ...row.of, amount: fixed(Math.abs(row.shown), digits) }));
  return tell(record.sentence, { space: named("space", explanation.space), base: fixed(base, digits), total: fixed(total, digits), reasons: reasons.join(t("reason.between")) });
}

// The bytes around the fault, the one where it lies in brackets.
function stops(where, fields) {
  const bytes = where.around ? (where.around.hex.match(/../g) || []).map((each, at) => (where.around.byte + at === where.byte ? `[${each}]` : each)) : [];
  return h("div", { class: "sentences", key: "stops" }, h("p", {}, stopsAt(where), " ", t(fields ? "record.read_before" : "record.nothing_before")),
    where.around === null ? h("p", { class: "quiet" }, t("record.around_masked")) : bytes.length ? h("p", { class: "quiet" }, t("record.around", { byte: where.around.byte }), " ", h("code", { dir: "ltr" }, bytes.join(" "))) : null);
}

function text(shown) {
  if (shown.masked) return t("word.masked");
  if (shown.text === null) return t("word.none");
  return [foreign(shown.text), shown.characters > shown.text.length ? h("span", { class: "quiet" }, ` ${t("record.cut", { characters: shown.characters })}`) : null];
}

// Base, steps and total as they are shown add up to the last digit: each step is the difference of two rounded levels.
export function steps(explanation, most, left) {
  const order = explanation.attributions.map((each, at) => ({ ...each, at })).sort((a, b) => Math.abs(b.attribution) - Math.abs(a.attribution) || a.at - b.at);
  const kept = order.slice(0, most);
  const rest = order.slice(most);
  const rows = kept.map((each) => ({ name: named_value(each), step: each.attribution, of: each }));
  const others = rest.length + left.attributions;
  if (others) rows.push({ name: t("record.others", { others }), step: rest.reduce((sum, each) => sum + each.attribution, left.attribution) });
  const largest = Math.max(...rows.map((each) => Math.abs(each.step)), 1e-300);
  const digits = Math.max(0, Math.min(10, 2 - Math.floor(Math.log10(largest))));
  const round = (value) => Number(value.toFixed(digits));
  let level = explanation.base_value;
  for (const row of rows) {
    row.from = level;
    level += row.step;
    row.to = level;
    row.shown = Number((round(row.to) - round(row.from)).toFixed(digits));
  }
  return { rows, digits, base: round(explanation.base_value), total: round(level) };
}

function waterfall(record, state) {
  const { explanation } = record;
  const left = leftOut(record);
  const count = explanation.attributions.length + left.attributions;
  const { rows, digits, base, total } = steps(explanation, all ? Infinity : rowsShown, left);
  const levels = [explanation.base_value, ...rows.map((row) => row.to)];
  const low = Math.min(...levels);
  const span = Math.max(...levels) - low || 1;
  const at = (value) => ((value - low) / span) * 100;
  const row = (key, name, amount, word, from, to, className) => h("li", { key, class: className },
    h("span", { class: "name" }, foreign(name)),
    h("span", { class: "track", "aria-hidden": "true" }, h("span", { class: "step", style: { left: `${Math.min(at(from), at(to)).toFixed(2)}%`, width: `${Math.max(Math.abs(at(to) - at(from)), 0.4).toFixed(2)}%` } })),
    h("span", { class: "amount" }, amount), h("span", { class: "word" }, word));
  return section(t("record.waterfall", { output: explanation.output, space: named("space", explanation.space) }),
    h("ol", { class: "waterfall" },
      row("base", t("record.base"), fixed(base, digits), t("record.usual"), explanation.base_value, explanation.base_value, "base"),
      rows.map((each, place) => row(String(place), each.name, `${each.step >= 0 ? "▲" : "▼"} ${signed(each.shown, digits)}`, t(each.step >= 0 ? "word.raised" : "word.lowered"), each.from, each.to, each.step >= 0 ? "up" : "down")),
      row("total", t("record.total"), fixed(total, digits), t("record.score"), levels[levels.length - 1], levels[levels.length - 1], "total")),
    count > rowsShown ? h("button", { type: "button", "aria-pressed": String(all), onclick: () => { all = !all; if (all && left.attributions) load(state, ""); else state.redraw(); } }, t(all ? "record.fewer" : "record.all", { count })) : null,
    h("p", { class: "quiet" }, explanation.additivity_error === null ? t("record.residual_unknown") : t("record.residual", { error: number(explanation.additivity_error) })));
}
