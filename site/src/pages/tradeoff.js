// The trade-off page: chart, slider, filters, table.
import { byId, down, element, embedded, everyFrame, root, svg, thousands, whenResized } from "../dom.js";
import { forgetOwnRows, ownRows } from "../own-row.js";
import { publishedTable } from "../published-table.js";
import { drawScatter, marker, methodClass } from "../scatter.js";
import "../shell.js";
import { SortableTable, download } from "../table.js";
import { certifiedAt, decidedAt, epsText, leftByAttacks, modelPoints, publishedFronts } from "../tradeoff-data.js";

const data = embedded("tradeoff-data");
const state = { dataset: null, stop: 0, measure: "certified", hidden: new Set() };
const slider = byId("eps");
const href = (m) => (m.own ? `${root()}compare.html` : `${root()}models/${m.name}.html`);

const table = new SortableTable(
  byId("models"),
  [
    { key: "name", title: () => "model", value: (m) => m.name, node: (m) => element("a", { href: href(m) }, breakable(m.name)) },
    { key: "accuracy", title: () => "natural %", number: true, value: (m) => m.accuracy, text: (m) => down(m.accuracy) },
    { key: "certified", title: () => `certified % at ${epsText(state.dataset, state.stop)}`, number: true, value: (m) => certifiedAt(m, state.stop), text: (m) => down(certifiedAt(m, state.stop)) },
    { key: "decided", title: () => "certified % by any method", number: true, value: (m) => decidedAt(m, state.stop)?.certified, text: (m) => share(decidedAt(m, state.stop)?.certified) },
    { key: "decided images", title: () => "images of certified % by any method", csvOnly: true, value: (m) => decidedAt(m, state.stop)?.n },
    { key: "attacked", title: () => "attacked %", number: true, value: (m) => leftByAttacks(m, state.stop)?.value, text: (m) => share(leftByAttacks(m, state.stop)?.value) },
    { key: "attacked images", title: () => "images of attacked %", csvOnly: true, value: (m) => leftByAttacks(m, state.stop)?.n },
    { key: "acr", title: () => `ACR, % of ${state.dataset.eps_max}`, number: true, value: (m) => m.acr, text: (m) => down(m.acr) },
    { key: "method", title: () => "trained with", value: (m) => data.methods[m.method] ?? m.method, node: methodCell },
    { key: "kappa", title: () => "kappa", number: true, value: (m) => m.kappa, text: (m) => m.kappa ?? "–" },
    { key: "parameters", title: () => "parameters", number: true, value: (m) => m.parameters, text: (m) => (m.parameters ? thousands(m.parameters) : "–") },
    { key: "hours", title: () => "training, h", number: true, value: (m) => m.hours, text: (m) => (m.hours ?? null) === null ? "–" : m.hours.toFixed(2) },
    { key: "rounding", title: () => "proof", value: proofText, text: proofText },
    { key: "n", title: () => "images", number: true, value: (m) => m.n, text: (m) => thousands(m.n) },
  ],
  "certified",
);

const showPublished = publishedTable(byId("published-table"), () => (state.measure === "acr" ? `ACR, % of ${state.dataset.eps_max}` : "certified %"));

function proofText(m) {
  return `${m.verifier.toUpperCase()}, ${m.rounding}`;
}

/** A share in percent, where it is known. */
const share = (value) => (value === undefined ? "–" : down(value));

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
  const points = modelPoints(dataset, data.methods, models, stop, measure, href);
  byId("marks-decided").hidden = !points.some((p) => p.decided);
  byId("marks-gap").hidden = !points.some((p) => p.gap || p.decided);
  byId("marks-published").hidden = !published.length;
  byId("marks-verified").hidden = byId("networks").hidden = measure === "acr";
  drawScatter(byId("chart"), {
    points,
    fronts: published,
    xTitle: "natural accuracy, %",
    yTitle: measure === "acr" ? `ACR, % of ${dataset.eps_max}` : `certified accuracy at ${eps}, %`,
    label: `${dataset.title}: ${models.length} models`,
  });
  table.show(models);
  byId("count").textContent = `${models.length} of ${allModels().length} models`;
  note(models, published);
  byId("published-details").hidden = !published.length;
  showPublished(published);
  location.replace(`#${dataset.name}/${stop}/${measure}`);
}

/** What the figures count, and where the grey lines come from. */
function note(models, published) {
  const counts = [...new Set(models.map((m) => m.n))].sort((a, b) => a - b);
  const parts = [];
  if (state.measure === "certified" && counts.length) {
    parts.push(`Filled points are counted exactly from the stored radii of ${listed(counts.map((n) => (n < 10000 ? `the first ${thousands(n)}` : `all ${thousands(n)}`)))} test images.`);
  }
  const decided = [...new Set(models.map((m) => decidedAt(m, state.stop)?.n).filter(Boolean))].sort((a, b) => a - b);
  if (state.measure === "certified" && decided.length) parts.push(`Hollow points are of the first ${listed(decided.map(thousands))} test images.`);
  const attacks = [...new Set(models.map((m) => m.attacked?.n).filter(Boolean))].sort((a, b) => a - b);
  if (state.measure === "certified" && attacks.length) parts.push(`Attacks were run on the first ${listed(attacks.map(thousands))} test images.`);
  const sources = new Map(published.map((f) => [f.source, f.url]));
  const links = [...sources].flatMap(([source, url], i) => [i ? "; " : "", url ? element("a", { href: url }, source) : source]);
  const hint =
    state.measure === "certified"
      ? [
          ...(decided.length ? [] : elsewhere(" Complete verification was run at ", models.flatMap((m) => m.decided ?? []))),
          ...(byId("published").checked && !published.length ? elsewhere(" Published results are known at ", state.dataset.fronts) : []),
        ]
      : [];
  byId("note").replaceChildren(parts.join(" "), ...(links.length ? [" Grey: published by others, not measured here: ", ...links, "."] : []), ...hint);
}

/** "a, b or c". */
const listed = (texts) => (texts.length < 2 ? texts.join("") : `${texts.slice(0, -1).join(", ")} or ${texts.at(-1)}`);

/** A sentence with a button for each stop of the entries; nothing where there are none. */
function elsewhere(text, entries) {
  const stops = [...new Set(entries.map((entry) => entry.stop))].sort((a, b) => a - b);
  if (!stops.length) return [];
  return [text, ...stops.flatMap((s, i) => [i ? " and " : "", element("button", { type: "button", class: "link", onclick: () => moveTo(s) }, epsText(state.dataset, s))]), "."];
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
const [name, stop, measure] = location.hash.slice(1).split("/");
if (measure === "acr") {
  state.measure = "acr";
  byId("measure-acr").checked = true;
}
choose(data.datasets.find((d) => d.name === name) ?? data.datasets.find((d) => d.name === "cifar10") ?? data.datasets[0], stop ? Number(stop) : undefined);
whenResized(byId("chart"), draw);
