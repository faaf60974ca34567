import { h } from "./dom.js";
import { bar, changes, figures, foreign, link, section, sentences, stopsAt, table } from "./parts.js";
import { replay } from "./replay.js";
import { duration, moment, named, number, t, tell } from "./words.js";

export function show(page, state) {
  const most = Math.max(...page.partitions.map((each) => each.lag_records || 0), 1);
  return [
    h("div", { class: "lead" }, h("p", { class: `state ${page.state}` }, named("state", page.state)), sentences(page.summary)),
    figures([
      [t("health.behind"), number(page.lag_records), t("word.records")], [t("health.oldest"), duration(page.lag_s), t("health.may_be", { age: duration(page.max_age_s) })],
      [t("word.partitions"), number(page.partitions_known)], [t("health.rebalances"), number(page.rebalances), page.rebalance_s ? t("health.rebalance_cost", { time: duration(page.rebalance_s) }) : null], [t("health.dropped"), number(page.dropped)],
    ]),
    section(t("health.partitions"),
      page.partitions_known > page.partitions.length ? h("p", { class: "quiet" }, t("health.some", { shown: page.partitions.length, all: page.partitions_known })) : null,
      table(t("health.partitions"), [{ name: t("word.partition"), head: true }, { name: t("word.owner") }, { name: t("health.behind") }, { name: t("word.records"), figure: true }, { name: t("health.age"), figure: true }, { name: t("word.per_s_long"), figure: true }, { name: t("health.trend") }, { name: t("health.then") }],
        page.partitions.map((each) => ({
          key: String(each.partition),
          cells: [String(each.partition), t("word.worker_number", { worker: each.slot }), bar((each.lag_records || 0) / most, "strength"), number(each.lag_records), duration(each.lag_s), number(each.records_per_s === null ? null : Math.round(each.records_per_s)), trend(each), then(each)],
        })), t("health.no_partitions"))),
    h("div", { class: "pair", key: "pair" },
      section(t("health.rejected_by"), table(t("health.rejected_by"), [{ name: t("word.reason"), head: true }, { name: t("word.records"), figure: true }, { name: t("health.lately"), figure: true }, { name: t("health.examples") }], page.rejected.map((each) => ({ key: each.reason, cells: [named("rejection", each.reason), number(each.records), number(each.lately), each.examples.length ? h("ul", { class: "examples" }, each.examples.map((one) => h("li", { key: `${one.partition}/${one.offset}` }, link(one), " ", tell(one.said), one.stops ? h("span", { class: "quiet" }, " ", stopsAt(one.stops)) : null))) : "—"] })), t("health.none_rejected_yet"))),
      section("Kafka", table("Kafka", [{ name: t("word.worker"), head: true }, { name: t("health.answers") }, { name: t("health.answered"), figure: true }], page.kafka.map((each) => ({ key: each.slot, cells: [each.slot, h("span", { class: each.reachable ? "good" : "bad" }, each.reachable ? "● " : "▲ ", t(each.reachable ? "health.reachable" : "health.unreachable"), " ", each.said ? tell(each.said) : foreign(each.address)), t("health.ago", { age: duration(each.answer_age_s) })] })), t("health.kafka_unasked")))),
    replay(state, null),
    section(t("health.waiting"), table(t("health.waiting"), [{ name: t("word.partition"), head: true }, { name: t("health.since") }, { name: t("word.why") }], page.waits.map((each) => ({ key: `${each.slot} ${each.partition}`, cells: [each.partition === null ? t("health.whole_worker", { worker: each.slot }) : String(each.partition), moment(each.since_ms), tell(each.said)] })), t("health.no_waits"))),
    section(t("word.changes"), changes(page.changes)),
  ];
}

function trend(each) {
  return `${{ falls: "▼", rises: "▲", steady: "●", unknown: "○" }[each.trend]} ${t(`trend.${each.trend}`)}`;
}

function then(each) {
  if (each.waits_for !== null) return tell(each.waits_said);
  if (each.drain_s !== null) return t("health.drains", { time: duration(each.drain_s) });
  if (each.breach_s !== null) return each.breach_s > 0 ? t("health.breaches", { time: duration(each.breach_s) }) : t("health.is_breached");
  return "—";
}
