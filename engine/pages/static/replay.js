// Dead letters put back on the input topic: looked at first, which puts nothing back, then done once.

import { h } from "./dom.js";
import { sentences } from "./parts.js";
import { acting, ask } from "./asking.js";
import { codes, named, number, t } from "./words.js";

const looks_max = 2400;
const others = ["already", "foreign", "gone", "unreadable", "refused"];
let plan = null;
let fault = null;
let asking = false;
let reason = "";

async function run(state, body) {
  if (asking) return;
  asking = true;
  fault = null;
  if (!body.plan) plan = null;
  state.redraw();
  let answer = await ask("replay", body);
  for (let at = 0; at < looks_max; at += 1) {
    if (answer.error) break;
    plan = answer;
    state.redraw();
    if (!["looking", "putting_back"].includes(plan.state)) break;
    await new Promise((done) => setTimeout(done, 500));
    const all = await ask("replays", null);
    answer = all.error ? all : all.replays.find((each) => each.plan === plan.plan) || { error: { code: "replay.forgotten", values: {}, text: "" } };
  }
  if (answer.error) fault = answer.error;
  asking = false;
  state.redraw();
}

// `one`: the place of the record whose letter is meant; null: all letters, or those of a reason.
export function replay(state, one) {
  const selection = one ? { partition: one.partition, offset: one.offset } : reason ? { reasons: [reason] } : {};
  const count = plan && plan.state === "ready" ? plan.to_replay.replayed : 0;
  return acting("replay", t("replay.title"), state, (token) => h("div", { class: "trial replay" },
    h("p", { class: "quiet" }, t(one ? "replay.note_one" : "replay.note")),
    h("form", { class: "filters", key: "look", onsubmit: (event) => { event.preventDefault(); run(state, { dry_run: true, ...selection }); } },
      one ? null : h("label", { key: "which" }, t("replay.which"), " ", h("select", { onchange: (event) => { reason = event.target.value; plan = null; fault = null; state.redraw(); } },
        h("option", { key: "", value: "", selected: reason === "" }, t("replay.all")),
        codes("rejection").map((each) => h("option", { key: each, value: each, selected: reason === each }, named("rejection", each))))),
      h("button", { type: "submit", "aria-disabled": String(asking) }, t("replay.look")), token),
    count ? h("form", { class: "filters", key: "put", onsubmit: (event) => { event.preventDefault(); run(state, { plan: plan.plan }); } },
      h("button", { type: "submit", "aria-disabled": String(asking) }, t("replay.put", { count }))) : null,
    h("div", { class: "answer", key: "answer", role: "status" }, fault ? sentences([fault]) : plan ? told(plan) : null)));
}

function told(shown) {
  const read = shown.letters_read;
  if (shown.state === "looking" || shown.state === "putting_back") return h("p", { class: "quiet" }, t(`replay.${shown.state}`, { read }));
  if (shown.state === "failed") return h("p", {}, t("replay.failed", { fault: shown.said }));
  const report = shown.state === "done" ? shown.replayed : shown.to_replay;
  const by = Object.entries(report.by_reason).map(([each, count]) => `${named("rejection", each)}: ${number(count)}`).join(", ");
  const first = !report.replayed ? t(`replay.${shown.state}_none`, { read }) : t(`replay.${shown.state}`, { count: report.replayed, read, by });
  return h("div", { class: "sentences" }, h("p", { key: "first" }, first), others.filter((each) => report[each]).map((each) => h("p", { key: each }, t(`replay.${each}`, { count: report[each] }))));
}
