// Small helpers for the DOM and for text.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes, properties (on...: listeners) and children. */
export function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style") Object.assign(node.style, value); // through the object model: the page allows no inline styles
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export const byId = (id) => document.getElementById(id);

/** The JSON of a <script type="application/json"> of the page. */
export const embedded = (id) => JSON.parse(byId(id).textContent);

/** A JSON file of the site, `path` relative to the site's root. */
export async function loadJson(path) {
  const response = await fetch(root() + path);
  if (!response.ok) throw new Error(`${path} could not be read (${response.status})`);
  return response.json();
}

/** Path from this page to the site's root. */
export const root = () => document.documentElement.dataset.root;

/** `value` cut (not rounded) to `digits` decimals: no figure says more than was proved. */
export function down(value, digits = 2) {
  const scale = 10 ** digits;
  return (Math.floor(value * scale + 1e-9 * scale) / scale).toFixed(digits);
}

/** A radius as people write it: "2.05/255" or "0.302", cut. */
export const radiusText = (radius, greyLevels) => (greyLevels ? `${down(radius * 255, 2)}/255` : down(radius, 4));

export const thousands = (n) => n.toLocaleString("en");

/** Calls `f` now and whenever the width of `node` has changed. */
export function whenResized(node, f) {
  let width = 0;
  const soon = everyFrame(f);
  new ResizeObserver(([entry]) => {
    if (Math.abs(entry.contentRect.width - width) < 1) return;
    width = entry.contentRect.width;
    soon();
  }).observe(node);
}

/** `f` at most once a frame. */
export function everyFrame(f) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      f();
    });
  };
}
