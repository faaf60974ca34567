import { chart } from "./chart.js";
import { h } from "./dom.js";
import { figures, section, sentences, table, workers } from "./parts.js";
import { duration, moment, number, t, tell } from "./words.js";

export function show(page) {
  const { demand, series } = page;
  return [
    sentences(page.summary),
    figures([
      [t(`scaling.wanted_${page.role}`), number(page.wanted)], [t(`scaling.asked_${page.role}`), number(page.asked)], [t(`scaling.running_${page.role}`), number(page.running)],
      ...(page.role === "scaler" ? [[t("scaling.arrivals"), number(demand.arrival_records_per_s), t("word.per_s")], [t("scaling.forecast"), number(demand.forecast_records_per_s), t("word.per_s")]] : []),
      [t("scaling.backlog"), number(demand.backlog_records), t("word.records")], [t("health.oldest"), duration(demand.oldest_age_s)], [t("scaling.one_worker"), number(demand.capacity_records_per_s), t("word.per_s")],
    ]),
    section(t("flow.over_time"), h("div", { class: "charts" },
      chart({ id: "replicas", title: t("scaling.over_time"), sentence: t("scaling.sentence", { running: page.running, wanted: page.wanted }), times: series.at_ms,
        lines: [{ name: t(`scaling.running_${page.role}`), values: series.running, className: "one" }, { name: t(`scaling.wanted_${page.role}`), values: series.wanted, className: "two" }] }),
      series.forecast_records_per_s ? chart({ id: "forecast", title: t("scaling.forecast_over_time"), sentence: t("scaling.forecast_sentence", { arrivals: last(series.arrival_records_per_s), forecast: last(series.forecast_records_per_s) }), times: series.at_ms,
        lines: [{ name: t("scaling.arrivals"), values: series.arrival_records_per_s, className: "one" }, { name: t("scaling.forecast"), values: series.forecast_records_per_s, className: "two" }] }) : null)),
    section(t("scaling.decisions"), table(t("scaling.decisions"), [{ name: t("word.time"), head: true }, { name: t("scaling.step"), figure: true }, { name: t("word.why") }], [...page.decisions].reverse().map((each) => ({
      key: `${each.at_ms} ${each.text.text}`, cells: [moment(each.at_ms), each.to === null ? "—" : `${number(each.from)} → ${number(each.to)}`, tell(each.text)],
    })), t("scaling.no_decisions"))),
    page.role === "supervisor" ? section(t("word.workers"), workers(page.workers)) : null,
  ];
}

function last(values) {
  return values.length ? values[values.length - 1] : null;
}
