// Elements described by values, and made or brought up to date in place, so that focus, open details and selections stay.
// Texts only ever become text nodes; nothing here takes markup.

export function h(tag, attrs, ...children) {
  return { tag, attrs: attrs || {}, children: children.flat(Infinity).filter((each) => each !== null && each !== undefined && each !== false) };
}

const svgTags = new Set(["svg", "path", "line", "rect", "g", "polygon", "circle"]);

function same(node, wanted) {
  if (typeof wanted !== "object") return node.nodeType === Node.TEXT_NODE;
  return node.nodeType === Node.ELEMENT_NODE && node.localName === wanted.tag && node.__key === wanted.attrs.key;
}

function make(wanted) {
  if (typeof wanted !== "object") return document.createTextNode(String(wanted));
  const node = svgTags.has(wanted.tag)
    ? document.createElementNS("http://www.w3.org/2000/svg", wanted.tag)
    : document.createElement(wanted.tag);
  node.__key = wanted.attrs.key;
  bring(node, wanted);
  return node;
}

function bring(node, wanted) {
  if (typeof wanted !== "object") {
    if (node.data !== String(wanted)) node.data = String(wanted);
    return;
  }
  const before = node.__attrs || {};
  for (const name of Object.keys(before)) if (!(name in wanted.attrs)) unset(node, name);
  for (const [name, value] of Object.entries(wanted.attrs)) set(node, name, value, before[name]);
  node.__attrs = wanted.attrs;
  if (!wanted.attrs.foreign) patch(node, wanted.children);
}

function set(node, name, value, before) {
  if (name === "key" || name === "foreign" || name === "ref") {
    if (name === "ref") value(node);
  } else if (name.startsWith("on")) {
    node[name] = value;
  } else if (name === "style") {
    for (const [property, text] of Object.entries(value)) if (!before || before[property] !== text) node.style.setProperty(property, text);
  } else if (name === "value") {
    if (node.value !== String(value) && document.activeElement !== node) node.value = String(value);
  } else if (value === false || value === null || value === undefined) {
    unset(node, name);
  } else if (value !== before) {
    node.setAttribute(name, value === true ? "" : String(value));
  }
}

function unset(node, name) {
  if (name.startsWith("on")) node[name] = null;
  else node.removeAttribute(name);
}

export function patch(parent, children) {
  const keyed = new Map();
  for (const node of parent.childNodes) if (node.__key !== undefined) keyed.set(node.__key, node);
  let cursor = parent.firstChild;
  for (const wanted of children) {
    const key = typeof wanted === "object" ? wanted.attrs.key : undefined;
    let node = key === undefined ? cursor : keyed.get(key);
    if (key === undefined) while (node && node.__key !== undefined) node = node.nextSibling;
    if (!node || !same(node, wanted)) {
      node = make(wanted);
      parent.insertBefore(node, cursor);
      continue;
    }
    bring(node, wanted);
    if (node === cursor) cursor = cursor.nextSibling;
    else parent.insertBefore(node, cursor);
  }
  while (cursor) {
    const next = cursor.nextSibling;
    parent.removeChild(cursor);
    cursor = next;
  }
}
