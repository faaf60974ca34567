// The words of the chosen language, and numbers and times as it writes them.

export const languages = { en: "English", zh: "中文" };
const sets = new Set(["stage", "space", "bound", "rejection", "state"]); // values of these names are codes, which have words of their own
let words = {};
export let language = "en";

export function stored(name, allowed) {
  try {
    const value = localStorage.getItem(`penstock.${name}`);
    return allowed.includes(value) ? value : null;
  } catch {
    return null; // storage is switched off
  }
}

export function store(name, value) {
  try {
    localStorage.setItem(`penstock.${name}`, value);
  } catch {
    return; // the choice holds for this page
  }
}

export async function speak(wanted) {
  const known = Object.keys(languages);
  const asked = wanted || stored("language", known) || navigator.languages.map((each) => each.slice(0, 2).toLowerCase()).find((each) => known.includes(each)) || "en";
  const answer = await fetch(`/static/${asked}.json`);
  words = await answer.json();
  language = asked;
  document.documentElement.lang = asked === "zh" ? "zh-CN" : "en";
}

export function has(code) {
  return code in words;
}

// The names of a closed set, in the order of the file.
export function codes(set) {
  return Object.keys(words).filter((each) => each.startsWith(`${set}.`)).map((each) => each.slice(set.length + 1));
}

export function t(code, values) {
  const template = words[code];
  if (template === undefined) {
    console.error(`no words for ${code}`);
    return code;
  }
  return template.replace(/\{([a-z_0-9]+)\}/g, (_, name) => said(values ? values[name] : undefined, name));
}

function said(value, name) {
  if (value === null || value === undefined) return "—";
  if (typeof value === "number") return number(value);
  if (Array.isArray(value)) return value.map((each) => tell(each)).join(words["reason.between"]);
  if (typeof value === "object") return tell(value);
  return sets.has(name) && has(`${name}.${value}`) ? words[`${name}.${value}`] : isolated(whole(value));
}

// Foreign text in a sentence must not turn the direction of what follows.
export function isolated(text) {
  return `\u2068${text}\u2069`;
}

// What the engine told elsewhere is an English text first of all: as such it is said word for word.
export function tell(sentence, values) {
  if (sentence.code === "told.as_it_is" || (language === "en" && sentence.code.startsWith("told."))) return isolated(whole(sentence.text));
  return has(sentence.code) ? t(sentence.code, { ...sentence.values, ...values }) : sentence.text;
}

// A text that was cut says how long it is: in English, as it came.
export function whole(text) {
  return text.replace(/… \((\d+) characters\)/g, (_, characters) => `… ${t("word.characters", { characters: Number(characters) })}`);
}

// A name out of a closed set, in the words of the language where it has some.
export function named(set, name) {
  return has(`${set}.${name}`) ? words[`${set}.${name}`] : name;
}

const formats = new Map();
function format(options) {
  const key = JSON.stringify([language, options]);
  if (!formats.has(key)) formats.set(key, new Intl.NumberFormat(language, options));
  return formats.get(key);
}

export function number(value) {
  if (value === null || value === undefined) return "—";
  if (typeof value === "string") return value;
  const size = Math.abs(value);
  if (size >= 1e15 || (size > 0 && size < 1e-4)) return value.toExponential(2).replace("-", "−");
  if (Number.isInteger(value) || size >= 1000) return minus(format({ maximumFractionDigits: 0 }).format(value));
  return minus(format({ maximumSignificantDigits: 3 }).format(value));
}

export function fixed(value, digits) {
  return minus(format({ minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value));
}

export function signed(value, digits) {
  return minus(format({ minimumFractionDigits: digits, maximumFractionDigits: digits, signDisplay: "exceptZero" }).format(value));
}

export function exact(value) {
  if (value === null || value === undefined) return "—";
  return typeof value === "string" ? value : minus(String(value));
}

function minus(text) {
  return text.replace("-", "−");
}

export function percent(share) {
  if (share === null || share === undefined) return "—";
  const digits = share > 0 && share < 0.0995 ? { maximumSignificantDigits: 2 } : { maximumFractionDigits: 0 };
  return share > 0 && share < 0.0001 ? `<${format({ style: "percent", maximumFractionDigits: 2 }).format(0.0001)}` : format({ style: "percent", ...digits }).format(share);
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "—";
  if (seconds === 0) return "0 s";
  if (seconds < 1e-3) return `${number(seconds * 1e6)} µs`;
  if (seconds < 1) return `${number(seconds * 1e3)} ms`;
  if (seconds < 120) return `${number(seconds)} s`;
  if (seconds < 7200) return `${number(Math.round(seconds / 60))} min`;
  return `${number(Math.round(seconds / 3600))} h`;
}

const clocks = { time: { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" }, moment: { dateStyle: "medium", timeStyle: "medium" } };
function dated(kind, ms) {
  const key = `${language} ${kind}`;
  if (!formats.has(key)) formats.set(key, new Intl.DateTimeFormat(language, clocks[kind])); // to make one takes longer than to draw a hundred points
  return formats.get(key).format(ms);
}

export function clock(ms) {
  return dated("time", ms);
}

export function moment(ms) {
  return dated("moment", ms);
}
