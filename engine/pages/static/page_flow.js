import { chart } from "./chart.js";
import { h } from "./dom.js";
import { bar, changes, figures, section, table, workers } from "./parts.js";
import { duration, named, number, percent, t, tell } from "./words.js";

export function show(flow) {
  const { latency, series, totals } = flow;
  const marks = flow.changes.map((each) => each.at_ms);
  const ms = (value) => duration(value === null ? null : value / 1000);
  const last = (name) => (series[name].length ? series[name][series[name].length - 1] : null);
  return [
    h("div", { class: "lead" },
      h("p", { class: `state ${flow.state}` }, named("state", flow.state)),
      h("p", { class: "limit" }, tell(flow.limit)),
      h("p", { class: "quiet" }, t("flow.where", { topic: flow.topic, group: flow.group }))),
    hints(flow.hints),
    figures([
      [t("flow.rate"), number(round(flow.records_per_s))],
      [t("flow.finished"), number(totals.finished)],
      [t("flow.explained"), number(totals.explained)],
      [t("flow.rejected"), number(totals.rejected)],
      [t("flow.skipped"), number(totals.skipped)],
      [t("flow.in_flight"), number(totals.in_flight)],
      ["p50", ms(latency.p50_ms)],
      ["p99", ms(latency.p99_ms), t("flow.objective", { objective: ms(flow.objective_ms) })],
    ]),
    h("p", { class: "quiet" }, t("flow.balance", totals)),
    section(t("flow.stages"),
      h("ol", { class: "stages" }, flow.stages.map((each) => h("li", { key: each.stage },
        h("span", { class: "name" }, named("stage", each.stage)),
        bar(each.busy, each.stage),
        h("span", { class: "figure" }, each.batches ? percent(each.busy) : "—"),
        h("span", { class: "quiet" }, each.batches ? t("flow.stage_note", { mean: ms(each.mean_ms) }) : t("flow.stage_none"),
          each.us_per_record === null ? "" : t("flow.stage_each", { each: duration(each.us_per_record / 1e6) }))))),
      h("p", { class: "quiet" }, t("flow.stages_note"))),
    section(t("flow.over_time"),
      h("div", { class: "charts" },
        chart({ id: "rate", title: t("flow.rate"), sentence: t("flow.rate_sentence", { now: round(last("records_per_s")), seconds: series.at_ms.length }), times: series.at_ms, marks,
          lines: [{ name: t("word.records_per_s"), values: series.records_per_s, className: "one" }] }),
        chart({ id: "busy", title: t("flow.time_spent"), sentence: t("flow.busy_sentence", { busy: percent(last("busy")), blocked: percent(last("blocked")), idle: percent(last("idle")) }), times: series.at_ms, marks, stacked: true, max: 1, say: percent,
          lines: [{ name: t("word.busy"), values: series.busy, className: "busy" }, { name: t("word.blocked"), values: series.blocked, className: "blocked" }, { name: t("word.idle"), values: series.idle, className: "idle" }] }),
        chart({ id: "age", title: t("flow.age"), sentence: t("flow.age_sentence", { p99: ms(last("p99_ms")), objective: ms(flow.objective_ms) }), times: series.at_ms, marks, say: ms,
          lines: [{ name: "p99", values: series.p99_ms, className: "two" }], level: { value: flow.objective_ms, name: t("word.objective") } }),
        chart({ id: "lag", title: t("flow.lag"), sentence: t("flow.lag_sentence", { lag: duration(last("lag_s")), rows: last("queue_rows") }), times: series.at_ms, marks, say: duration,
          lines: [{ name: t("flow.lag"), values: series.lag_s, className: "three" }] })),
      h("p", { class: "quiet" }, t("flow.marks"))),
    section(t("word.workers"), workers(flow.workers)),
    h("div", { class: "pair", key: "pair" },
      section(t("flow.queues"), table(t("flow.queues"), [{ name: t("word.queue"), head: true }, { name: t("word.records"), figure: true }], flow.queues.map((each) => ({ key: each.queue, cells: [named("queue", each.queue), number(each.rows)] })))),
      section(t("flow.batches"),
        flow.rows_per_batch === null ? null : h("p", { class: "quiet" }, t("flow.rows_per_batch", { rows: round(flow.rows_per_batch) })),
        table(t("flow.batches"), [{ name: t("word.why"), head: true }, { name: t("word.batches"), figure: true }], flow.batches.map((each) => ({ key: each.reason, cells: [named("closed", each.reason), number(each.batches)] })), t("flow.no_batches")))),
    section(t("word.changes"), changes(flow.changes)),
  ];
}

function hints(found) {
  return section(t("hints.title"),
    h("div", { class: "sentences" }, found.summary.map((each) => h("p", { key: each.code }, found.breach ? [h("span", { class: "bad", "aria-hidden": "true" }, "▲ "), tell(each)] : tell(each)))),
    found.causes.length ? h("ol", { class: "hints" }, found.causes.map((each) => h("li", { key: each.cause },
      h("strong", {}, tell(each.text)), " — ", tell(each.evidence), h("br"), h("span", { class: "quiet" }, t("hints.next"), " ", h("code", {}, each.command))))) : null,
    found.ruled_out.length ? h("details", { key: "ruled_out" }, h("summary", {}, t("hints.ruled_out")), h("ul", {}, found.ruled_out.map((each) => h("li", { key: each.cause }, tell(each.text))))) : null);
}

function round(value) {
  return value === null ? null : value >= 100 ? Math.round(value) : Math.round(value * 10) / 10;
}
