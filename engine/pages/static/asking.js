// What acts: asked of our own origin alone, with the token that somebody gave this page.

import { h } from "./dom.js";
import { t } from "./words.js";

export let token = "";

export async function ask(word, body) {
  const headers = { "Content-Type": "application/json", ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  try {
    const answer = await fetch(`/api/v1/${word}`, body === null ? { headers } : { method: "POST", headers, body: JSON.stringify(body) });
    return await answer.json();
  } catch {
    return { error: { code: "error.unreachable", values: {}, text: "" } };
  }
}

export function tokenField(state) {
  if (!window.isSecureContext) return h("p", { class: "quiet", key: "token" }, t("trial.token_plain"));
  return h("label", { key: "token", title: t("trial.token_note") }, t("trial.token"), " ",
    h("input", { type: "password", autocomplete: "off", maxlength: "8192", value: token, oninput: (event) => { token = event.target.value.trim(); state.redraw(); } }));
}
