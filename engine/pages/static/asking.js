// What acts: asked of our own origin alone, with the token that somebody gave this page.

import { h } from "./dom.js";
import { section, sentences } from "./parts.js";
import { t } from "./words.js";

let token = "";
let offers = null;

export async function ask(word, body) {
  const headers = { "Content-Type": "application/json", ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  try {
    const answer = await fetch(`/api/v1/${word}`, body === null ? { headers } : { method: "POST", headers, body: JSON.stringify(body) });
    return await answer.json();
  } catch {
    return { error: { code: "error.unreachable", values: {}, text: "" } };
  }
}

// A section of what may be asked for; where it would be refused it says why, and asks for nothing.
export function acting(word, title, state, content) {
  if (!offers) {
    offers = {};
    ask("acts", null).then((found) => { offers = found; state.redraw(); });
  }
  const offer = offers[word];
  if (!offer) return section(title, offers.error ? sentences([offers.error]) : h("p", { class: "empty" }, t("frame.loading")));
  return offer.offered === "refused" ? section(title, sentences([offer.reason])) : section(title, content(offer.offered === "token" ? tokenField(state) : null));
}

function tokenField(state) {
  if (!window.isSecureContext) return h("p", { class: "quiet", key: "token" }, t("trial.token_plain"));
  return h("label", { key: "token", title: t("trial.token_note") }, t("trial.token"), " ",
    h("input", { type: "password", autocomplete: "off", maxlength: "8192", value: token, oninput: (event) => { token = event.target.value.trim(); state.redraw(); } }));
}
