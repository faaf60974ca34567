// The frame of every page: where one is, whether it lives, and the choices that stay.

import { h, patch } from "./dom.js";
import { Live } from "./live.js";
import { language, languages, named, speak, store, stored, t } from "./words.js";

const pages = document.body.dataset.pages.split(" ");
const themes = ["auto", "light", "dark"];
const root = document.getElementById("app");
const place = /^\/records\/([^/]+)\/(\d+)\/(\d+)$/.exec(location.pathname);
const page = place ? "record" : pages.includes(location.pathname.slice(1)) ? location.pathname.slice(1) : pages[0];
const view = await import(`./page_${page}.js`);
let theme = stored("theme", themes) || "auto";
let drawing = false;

const live = place ? null : new Live(page, redraw);
const state = { document: null, fault: null, redraw, place };

function redraw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

function draw() {
  if (live) state.document = live.document;
  document.title = `${t(`page.${page}`)} — Penstock`;
  document.documentElement.dataset.theme = theme;
  patch(root, [
    h("a", { class: "skip", href: "#main" }, t("frame.skip")),
    h("header", {},
      h("a", { class: "mark", href: "/" }, "Penstock"),
      h("nav", { "aria-label": t("frame.pages") }, pages.map((each, at) => h("a", { key: each, href: at ? `/${each}` : "/", "aria-current": each === page || (page === "record" && each === "records") ? "page" : null }, t(`page.${each}`)))),
      h("div", { class: "tools" },
        live ? h("span", { class: `pulse ${live.state}`, role: "status" }, h("span", { "aria-hidden": "true" }, { live: "● ", paused: "❚❚ ", lost: "▲ ", connecting: "○ " }[live.state]), named("live", live.state)) : null,
        live ? h("button", { type: "button", "aria-pressed": String(live.paused), onclick: () => live.pause(!live.paused) }, t(live.paused ? "frame.resume" : "frame.pause")) : null,
        choice(t("frame.language"), languages, language, async (value) => { store("language", value); await speak(value); redraw(); }),
        choice(t("frame.theme"), Object.fromEntries(themes.map((each) => [each, t(`theme.${each}`)])), theme, (value) => { theme = value; store("theme", value); redraw(); }))),
    h("main", { id: "main", tabindex: "-1" },
      h("h1", { class: "hidden" }, t(`page.${page}`)),
      live && live.state === "lost" ? h("p", { class: "warning", role: "alert" }, t("frame.lost")) : null,
      state.document || state.fault ? view.show(state.document, state) : h("p", { class: "empty" }, t("frame.loading"))),
    h("footer", {}, t("frame.footer"), " ", h("a", { href: `/api/v1/${place ? location.pathname.slice(1) : page}` }, "JSON"), " · ", h("a", { href: "/api/v1/schema" }, t("frame.schema"))),
  ]);
  if (state.document || state.fault) document.body.dataset.done = page;
}

function choice(label, options, chosen, choose) {
  return h("label", {}, h("span", { class: "hidden" }, label), h("select", { onchange: (event) => choose(event.target.value) }, Object.entries(options).map(([value, text]) => h("option", { key: value, value, selected: value === chosen }, text))));
}

document.addEventListener("penstock-redraw", redraw);
await speak();
if (live) live.follow();
else view.load(state);
redraw();
