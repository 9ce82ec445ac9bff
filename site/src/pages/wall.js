// The image wall: every bundled test image with a bar for its certified radius, one model or two.
import { byId, element, embedded, loadJson, radiusText, root } from "../dom.js";
import { loadSheet, paint } from "../pixels.js";
import { startCopying, whereServed } from "../shell.js";

const data = embedded("wall-data");
const walls = new Map(); // model -> document
const sheets = new Map(); // data set -> sheet
const state = { dataset: null, first: null, second: "", opened: null };
const dialog = byId("detail");

const model = (name) => state.dataset.models.find((m) => m.name === name);

async function wall(name) {
  if (!walls.has(name)) walls.set(name, await loadJson(`data/walls/${name}.json`));
  return walls.get(name);
}

async function sheet() {
  const { name } = state.dataset;
  if (!sheets.has(name)) sheets.set(name, await loadSheet(`${root()}data/images/${name}.png`, state.dataset));
  return sheets.get(name);
}

async function show() {
  const documents = [await wall(state.first), ...(state.second ? [await wall(state.second)] : [])];
  const source = await sheet();
  const [height, width] = state.dataset.tile;
  const scale = 64 / width;
  const order = [...documents[0].images.keys()];
  const by = byId("order").value;
  if (by !== "bundled") {
    const key = { radius: (i) => -documents[0].images[i].radius, wrong: (i) => wrong(documents[0].images[i]) ? -1 : 0, difference: (i) => -Math.abs(documents[0].images[i].radius - (documents[1]?.images[i].radius ?? 0)) }[by];
    order.sort((a, b) => key(a) - key(b) || a - b);
  }
  byId("wall").replaceChildren(
    ...order.map((i) => {
      const texts = documents.map((d) => `${d.model}: ${describe(d.images[i])}`);
      const label = state.dataset.classes[documents[0].images[i].label];
      const picture = element("span", {
        class: "picture",
        style: {
          width: `${width * scale}px`,
          height: `${height * scale}px`,
          backgroundImage: `url("${source.url}")`,
          backgroundSize: `${source.columns * width * scale}px ${source.rows * height * scale}px`,
          backgroundPosition: `${-(i % source.columns) * width * scale}px ${-Math.floor(i / source.columns) * height * scale}px`,
        },
      });
      const bars = documents.map((d, k) => bar(d.images[i], k));
      const tile = element("button", { type: "button", class: "tile", "aria-label": `Image ${i}, ${label}. ${texts.join(". ")}`, "data-image": i, onclick: () => open(i) }, picture, ...bars);
      return element("li", {}, tile);
    }),
  );
  summary(documents);
  remember();
}

const wrong = (image) => image.label !== image.prediction;

function describe(image) {
  if (wrong(image)) return `answered ${state.dataset.classes[image.prediction]}, wrong`;
  return `certified radius ${radiusText(image.radius, state.dataset.grey_levels)}`;
}

function bar(image, k) {
  const share = Math.min(1, image.radius / state.dataset.full);
  const inner = element("span", { class: `fill fill-${k}`, style: { width: `${100 * share}%` } });
  return element("span", { class: `bar ${wrong(image) ? "wrong" : ""}`, "aria-hidden": "true" }, inner);
}

function summary(documents) {
  const lines = documents.map((d, k) => {
    const right = d.images.filter((i) => !wrong(i)).length;
    const proved = d.images.filter((i) => i.radius > 0).length;
    return element("span", { class: "summary" }, element("span", { class: `swatch fill-${k}`, "aria-hidden": "true" }), element("a", { href: `${root()}models/${d.name}.html` }, d.name), ` ${right} of ${d.images.length} right, ${proved} with a certified radius`);
  });
  byId("summary").replaceChildren(...lines, element("span", { class: "summary" }, `A full bar is ${state.dataset.full_text}; striped: answered wrong.`));
}

async function open(i) {
  state.opened = i;
  const documents = [await wall(state.first), ...(state.second ? [await wall(state.second)] : [])];
  const pixels = (await sheet()).tile(i);
  const shape = [state.dataset.tile[2], state.dataset.tile[0], state.dataset.tile[1]];
  byId("detail-title").textContent = `Image ${i}: ${state.dataset.classes[documents[0].images[i].label]}`;
  byId("detail-body").replaceChildren(...documents.map((d, k) => detail(d, i, k, pixels, shape)));
  if (!dialog.open) dialog.showModal();
  remember();
}

/** One model's side of an image's detail. */
function detail(document_, i, k, pixels, shape) {
  const image = document_.images[i];
  const { classes, grey_levels: grey } = state.dataset;
  const facts = [["true class", classes[image.label]], ["answer", classes[image.prediction] + (wrong(image) ? " (wrong: nothing is certified)" : "")]];
  if (!wrong(image)) facts.push(["certified radius", image.radius > 0 ? `${radiusText(image.radius, grey)} (exactly ${image.radius_text})` : "none could be proved"]);
  if (image.rival !== null) facts.push(["would take over first", `${classes[image.rival]} (the class whose margin is smallest at that radius)`]);
  if (image.member) facts.push(["answered by", image.member]);
  if (image.radius > 0) facts.push(["proved by", `${image.method.toUpperCase()}, ${image.rounding}`]);
  const pictures = [["darkest, x − r", -image.radius], ["the image, x", 0], ["brightest, x + r", image.radius]].map(([title, shift]) => {
    const canvas = element("canvas", { role: "img", "aria-label": `${title}` });
    paint(canvas, pixels, shape, shift);
    return element("figure", {}, canvas, element("figcaption", {}, title));
  });
  const id = `line-${k}`;
  const section = element(
    "section",
    {},
    element("h3", {}, element("span", { class: `swatch fill-${k}`, "aria-hidden": "true" }), document_.name),
    element("div", { class: "extremes" }, image.radius > 0 ? pictures : [pictures[1]]),
    element("dl", { class: "facts" }, facts.flatMap(([term, value]) => [element("dt", {}, term), element("dd", {}, value)])),
    element("details", {}, element("summary", {}, "The certificate, and how to prove it again"),
      snippet(id, "certificate", image.line),
      element("p", {}, "This line is in ", element("a", { href: `${root()}data/certificates/${document_.name}.jsonl`, download: true }, `${document_.name}.jsonl`), ". Prove all its lines again, from the weights alone:"),
      snippet(`${id}-command`, "command", `acert-zoo verify ${document_.name}.jsonl`)),
  );
  startCopying(section);
  return section;
}

/** Text to copy. */
function snippet(id, label, text) {
  const bar = element("div", { class: "snippet-bar" }, element("span", {}, label), element("button", { type: "button", class: "plain", "data-copy": id, "aria-label": `Copy: ${label}` }, "Copy"));
  return element("div", { class: "snippet" }, bar, element("pre", { id, tabindex: "0", "aria-label": label }, text));
}

function step(by) {
  const n = walls.get(state.first).images.length;
  open((state.opened + by + n) % n);
}

function remember() {
  const parts = [state.dataset.name, state.first, state.second, state.opened ?? ""];
  location.replace(`#${parts.join("/")}`);
}

function options(select, chosen, none) {
  select.replaceChildren(...(none ? [element("option", { value: "" }, "none")] : []), ...state.dataset.models.map((m) => element("option", { value: m.name, selected: m.name === chosen }, m.name)));
}

function choose(dataset, first, second) {
  state.dataset = dataset;
  byId(`dataset-${dataset.name}`).checked = true;
  state.first = model(first) ? first : dataset.shown;
  state.second = model(second) ? second : "";
  options(byId("first"), state.first, false);
  options(byId("second"), state.second, true);
  return show();
}

for (const input of document.querySelectorAll("[name=dataset]")) input.addEventListener("change", () => choose(data.datasets.find((d) => d.name === input.value)));
byId("first").addEventListener("change", () => ((state.first = byId("first").value), show()));
byId("second").addEventListener("change", () => ((state.second = byId("second").value), show()));
byId("order").addEventListener("change", show);
byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
dialog.addEventListener("keydown", (event) => {
  if (event.target.closest("pre")) return; // arrows scroll there
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
dialog.addEventListener("close", () => {
  document.querySelector(`[data-image="${state.opened}"]`)?.focus();
  state.opened = null;
  remember();
});
byId("close").addEventListener("click", () => dialog.close());

whereServed(async () => {
  const [name, first, second, opened] = location.hash.slice(1).split("/");
  await choose(data.datasets.find((d) => d.name === name) ?? data.datasets.find((d) => d.name === "cifar10") ?? data.datasets[0], first, second);
  if (opened && Number(opened) < walls.get(state.first).images.length) open(Number(opened));
});
