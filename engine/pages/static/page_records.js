import { h } from "./dom.js";
import { foreign, link, reason, section, sentences, table, when } from "./parts.js";
import { named, number, t } from "./words.js";

let outcome = "all";
let feature = "";

export function show(page, state) {
  const wanted = feature.trim().toLowerCase();
  const shown = page.records.filter((each) => (outcome === "all" || each.outcome === outcome) && (!wanted || each.reasons.some((one) => one.feature.toLowerCase().includes(wanted))));
  const columns = [{ name: t("word.time") }, { name: t("word.record"), head: true }, { name: t("word.outcome") }, { name: t("word.score"), figure: true }, { name: t("records.reasons") }];
  return [
    sentences(page.summary),
    h("form", { class: "filters", onsubmit: (event) => event.preventDefault() },
      h("fieldset", {}, h("legend", {}, t("word.outcome")), ["all", "predicted", "rejected"].map((each) => h("label", { key: each },
        h("input", { type: "radio", name: "outcome", value: each, checked: each === outcome, onchange: () => { outcome = each; state.redraw(); } }), " ", t(`outcome.${each}`)))),
      h("label", {}, t("records.by_feature"), " ", h("input", { type: "search", value: feature, maxlength: "100", oninput: (event) => { feature = event.target.value; state.redraw(); } }))),
    section(t("records.newest"),
      table(t("records.newest"), columns, shown.map((each) => ({
        key: `${each.topic}/${each.partition}/${each.offset}`,
        cells: [when(each.at_ms),
          link(each),
          each.outcome === "rejected" ? h("span", { class: "bad" }, "▲ ", t("outcome.rejected")) : foreign(each.label === null ? t("outcome.predicted") : each.label),
          number(each.score),
          each.outcome === "rejected" ? named("rejection", each.reason) : each.reasons.length ? h("ul", { class: "reasons" }, each.reasons.map((one) => h("li", { key: one.feature }, reason(one)))) : t("records.unexplained")],
      })), page.records.length ? t("records.none_match") : t("records.none_yet"))),
  ];
}
