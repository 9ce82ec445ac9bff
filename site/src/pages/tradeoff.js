// The trade-off page: chart, slider, filters, table.
import { byId, down, element, everyFrame, loadJson, root, svg, thousands } from "../dom.js";
import { forgetOwnRows, ownRows } from "../own-row.js";
import { drawScatter, marker, methodClass } from "../scatter.js";
import "../shell.js";
import { SortableTable, download } from "../table.js";
import { attackedAt, certifiedAt, epsText, modelPoints, publishedFronts } from "../tradeoff-data.js";

const data = await loadJson("data/tradeoff.json");
const state = { dataset: null, stop: 0, measure: "certified", hidden: new Set() };
const slider = byId("eps");
const href = (m) => (m.own ? `${root()}compare.html` : `${root()}models/${m.name}.html`);

const table = new SortableTable(
  byId("models"),
  [
    { key: "name", title: () => "model", value: (m) => m.name, node: (m) => element("a", { href: href(m) }, breakable(m.name)) },
    { key: "accuracy", title: () => "natural %", number: true, value: (m) => m.accuracy, text: (m) => down(m.accuracy) },
    { key: "certified", title: () => `certified % at ${epsText(state.dataset, state.stop)}`, number: true, value: (m) => certifiedAt(m, state.stop), text: (m) => down(certifiedAt(m, state.stop)) },
    { key: "attacked", title: () => "attacked %", number: true, value: (m) => attackedAt(m, state.stop)?.attacked, text: attackedText },
    { key: "acr", title: () => `ACR, % of ${state.dataset.eps_max}`, number: true, value: (m) => m.acr, text: (m) => down(m.acr) },
    { key: "method", title: () => "trained with", value: (m) => data.methods[m.method] ?? m.method, node: methodCell },
    { key: "kappa", title: () => "kappa", number: true, value: (m) => m.kappa, text: (m) => m.kappa ?? "–" },
    { key: "parameters", title: () => "parameters", number: true, value: (m) => m.parameters, text: (m) => (m.parameters ? thousands(m.parameters) : "–") },
    { key: "hours", title: () => "training, CPU h", number: true, value: (m) => m.hours, text: (m) => (m.hours ?? null) === null ? "–" : m.hours.toFixed(2) },
    { key: "rounding", title: () => "proof", value: proofText, text: proofText },
    { key: "n", title: () => "images", number: true, value: (m) => m.n, text: (m) => thousands(m.n) },
  ],
  "certified",
);

function proofText(m) {
  return `${m.verifier.toUpperCase()}, ${m.rounding}`;
}

/** What the attack left, in the table. */
function attackedText(m) {
  const a = attackedAt(m, state.stop);
  return a ? down(a.attacked) : "–";
}

/** A name that narrow columns may break after its underscores. */
function breakable(name) {
  return name.split(/(?<=_)/).flatMap((part, i) => (i ? [element("wbr"), part] : [part]));
}

function methodCell(m) {
  const icon = svg("svg", { viewBox: "-8 -8 16 16", width: 14, height: 14, "aria-hidden": "true", class: "key" }, marker(m.method, 90));
  return element("span", { class: "method" }, icon, m.own ? "your own" : (data.methods[m.method] ?? m.method));
}

function allModels() {
  return [...state.dataset.models, ...ownRows().filter((r) => r.dataset === state.dataset.name)];
}

/** The models that the filters leave. */
function shown() {
  const largest = Number(byId("parameters").value);
  const rounding = byId("rounding").value;
  const words = byId("search").value.trim().toLowerCase();
  return allModels().filter(
    (m) =>
      !state.hidden.has(m.method) && (!largest || (m.parameters ?? 0) <= largest) && (!rounding || m.rounding === rounding) && m.name.toLowerCase().includes(words),
  );
}

function draw() {
  const { dataset, stop, measure } = state;
  const models = shown();
  const eps = epsText(dataset, stop);
  const published = byId("published").checked ? publishedFronts(dataset, stop, measure, byId("network").value) : [];
  byId("eps-value").textContent = eps;
  slider.setAttribute("aria-valuetext", eps);
  drawScatter(byId("chart"), {
    points: modelPoints(dataset, data.methods, models, stop, measure, href),
    fronts: published,
    xTitle: "natural accuracy, %",
    yTitle: measure === "acr" ? `ACR, % of ${dataset.eps_max}` : `certified accuracy at ${eps}, %`,
    label: `${dataset.title}: ${models.length} models`,
  });
  table.show(models);
  byId("count").textContent = `${models.length} of ${allModels().length} models`;
  note(models, published);
  location.replace(`#${dataset.name}/${stop}/${measure}`);
}

/** What the figures count, and where the grey lines come from. */
function note(models, published) {
  const counts = [...new Set(models.map((m) => m.n))].sort((a, b) => a - b);
  const parts = [];
  if (state.measure === "certified" && counts.length) {
    parts.push(`Counted exactly from the stored radii of ${counts.map((n) => (n < 10000 ? `the first ${thousands(n)}` : `all ${thousands(n)}`)).join(" or ")} test images.`);
  }
  const attacks = [...new Set(models.map((m) => m.attacked?.n).filter(Boolean))];
  if (state.measure === "certified" && attacks.length) {
    parts.push(`A shaded bar is the share of images, of the first ${attacks.map(thousands).join(" or ")}, that are neither certified nor broken by an attack.`);
  }
  const sources = new Map(published.map((f) => [f.source, f.url]));
  const links = [...sources].flatMap(([source, url], i) => [i ? "; " : "", url ? element("a", { href: url }, source) : source]);
  const elsewhere = [...new Set(state.dataset.fronts.map((f) => f.stop))].filter((s) => s !== state.stop);
  const hint =
    byId("published").checked && !published.length && state.measure === "certified" && elsewhere.length
      ? [" Published results are known at ", ...elsewhere.sort((a, b) => a - b).flatMap((s, i) => [i ? " and " : "", element("button", { type: "button", class: "link", onclick: () => moveTo(s) }, epsText(state.dataset, s))]), "."]
      : [];
  byId("note").replaceChildren(parts.join(" "), ...(links.length ? [" Grey: published by others, not measured here: ", ...links, "."] : []), ...hint);
}

function moveTo(stop) {
  state.stop = stop;
  slider.value = stop;
  draw();
}

function choose(dataset, stop) {
  state.dataset = dataset;
  slider.max = dataset.last;
  state.stop = Number.isInteger(stop) && stop >= 0 && stop <= dataset.last ? stop : dataset.reported[0].stop;
  slider.value = state.stop;
  byId(`dataset-${dataset.name}`).checked = true;
  byId("snaps").replaceChildren(...dataset.reported.map((r) => element("button", { type: "button", class: "chip", onclick: () => moveTo(r.stop) }, r.text)));
  const networks = [...new Set(dataset.fronts.map((f) => f.network))].filter((n) => n !== "other");
  byId("network").replaceChildren(...networks.map((n) => element("option", { value: n, selected: n === "cnn7" }, n.replace("_", " ").replace("cnn", "CNN-"))));
  const sizes = [...new Set(allModels().map((m) => m.parameters))].filter(Boolean).sort((a, b) => a - b);
  byId("parameters").replaceChildren(element("option", { value: "0" }, "any"), ...sizes.map((s) => element("option", { value: s }, `up to ${thousands(s)}`)));
  const levels = [...new Set(allModels().map((m) => m.rounding))].filter(Boolean).sort();
  byId("rounding").replaceChildren(element("option", { value: "" }, "any"), ...levels.map((l) => element("option", { value: l }, l)));
  legend();
  draw();
}

/** One checkbox a method: legend and filter in one. */
function legend() {
  const known = Object.keys(data.methods);
  const place = (m) => (known.includes(m) ? known.indexOf(m) : known.length);
  const methods = [...new Set(allModels().map((m) => m.method))].sort((a, b) => place(a) - place(b));
  byId("methods").replaceChildren(
    ...methods.map((m) =>
      element(
        "label",
        { class: `choice ${methodClass(m)}` },
        element("input", { type: "checkbox", checked: !state.hidden.has(m), onchange: (event) => (event.target.checked ? state.hidden.delete(m) : state.hidden.add(m), draw()) }),
        svg("svg", { viewBox: "-8 -8 16 16", width: 15, height: 15, "aria-hidden": "true" }, marker(m, 90)),
        m === "own" ? "your own" : (data.methods[m] ?? m),
      ),
    ),
  );
}

const redraw = everyFrame(draw);
slider.addEventListener("input", () => {
  state.stop = Number(slider.value);
  redraw();
});
for (const input of document.querySelectorAll("[name=dataset]")) {
  input.addEventListener("change", () => choose(data.datasets.find((d) => d.name === input.value)));
}
for (const input of document.querySelectorAll("[name=measure]")) {
  input.addEventListener("change", () => {
    state.measure = input.value;
    draw();
  });
}
for (const id of ["parameters", "rounding", "published", "network"]) byId(id).addEventListener("change", draw);
byId("search").addEventListener("input", redraw);
byId("csv").addEventListener("click", () => download(table.csv(), `acert-zoo-${state.dataset.name}.csv`, "text/csv"));
byId("forget").hidden = !ownRows().length;
byId("forget").addEventListener("click", () => {
  forgetOwnRows();
  byId("forget").hidden = true;
  choose(state.dataset, state.stop);
});
let width = 0;
new ResizeObserver(([entry]) => {
  if (Math.abs(entry.contentRect.width - width) < 1) return;
  width = entry.contentRect.width;
  if (state.dataset) redraw();
}).observe(byId("chart"));

const [name, stop, measure] = location.hash.slice(1).split("/");
if (measure === "acr") {
  state.measure = "acr";
  byId("measure-acr").checked = true;
}
choose(data.datasets.find((d) => d.name === name) ?? data.datasets.find((d) => d.name === "cifar10") ?? data.datasets[0], stop ? Number(stop) : undefined);
