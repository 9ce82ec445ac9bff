// Prove it here: one image, one model, its margins' bounds at any eps and its certified radius, computed in this page.
import { Certifier } from "../certifier.js";
import { DigitPad } from "../digit-pad.js";
import { byId, down, element, embedded, radiusText, root } from "../dom.js";
import { fromRgba, loadSheet, paint } from "../pixels.js";
import { whereServed } from "../shell.js";
import { epsText } from "../tradeoff-data.js";

const data = embedded("prove-data");
const state = { model: null, dataset: null, certifier: null, pixels: null, label: null, sheet: null, run: 0, radius: null };
const slider = byId("eps");

/** The slider's radius in pixel units: its stops are those of the trade-off page. */
const eps = () => (Number(slider.value) * state.dataset.step) / (state.dataset.grey_levels ? 255 : 1);
const says = (text) => (byId("status").textContent = text);

function chooseModel(name) {
  state.model = data.models.find((m) => m.name === name) ?? data.models[0];
  state.dataset = data.datasets[state.model.dataset];
  state.certifier = null;
  state.radius = null;
  state.run++;
  byId("model").value = state.model.name;
  byId("load").hidden = false;
  byId("load").textContent = `Load the model (${down(state.model.bytes / 1e6, 1)} MB) and prove`;
  byId("source-draw").disabled = state.model.dataset !== "mnist";
  if (byId("source-draw").disabled && byId("source-draw").checked) byId("source-bundled").checked = true;
  byId("command").textContent = `acert-zoo certify --model ${state.model.name} photo.png --resize`;
  byId("result").hidden = true;
  slider.max = state.dataset.last;
  slider.value = state.dataset.reported[0].stop;
  return chooseSource();
}

async function chooseSource() {
  const source = document.querySelector("[name=source]:checked").value;
  for (const name of ["bundled", "photo", "draw"]) byId(`panel-${name}`).hidden = name !== source;
  if (source === "bundled") await bundled(0);
  if (source === "photo") byId("file").value = "";
  if (source === "draw" && !pad.empty) takeDigit();
}

async function bundled(chosen) {
  const { dataset, model } = state;
  state.sheet = await loadSheet(`${root()}data/images/${model.dataset}.png`, dataset);
  const shape = model.input_shape;
  byId("samples").replaceChildren(
    ...dataset.labels.slice(0, 20).map((label, i) => {
      const canvas = element("canvas", { "aria-hidden": "true" });
      paint(canvas, state.sheet.tile(i), shape);
      const button = element("button", { type: "button", class: "sample", "aria-label": `Image ${i}, ${dataset.classes[label]}`, "aria-pressed": String(i === chosen), onclick: () => pick(i) }, canvas);
      return button;
    }),
  );
  pick(chosen);
}

function pick(i) {
  for (const [k, button] of [...byId("samples").children].entries()) button.setAttribute("aria-pressed", String(k === i));
  use(state.sheet.tile(i), `bundled image ${i}: ${state.dataset.classes[state.dataset.labels[i]]}`, state.dataset.labels[i]);
}

/** The middle square of a photo, scaled to the model's size. It is read from disk and never leaves this page. */
async function takePhoto(file) {
  const [channels, height, width] = state.model.input_shape;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    says("This file could not be read as an image.");
    return;
  }
  const side = Math.min(bitmap.width, bitmap.height);
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, (bitmap.width - side) / 2, (bitmap.height - side) / 2, side, side, 0, 0, width, height);
  const pixels = fromRgba(context.getImageData(0, 0, width, height).data, [channels, height, width]);
  const onPaper = channels === 1 && pixels.reduce((sum, v) => sum + v, 0) > pixels.length / 2; // these models know bright strokes on black
  use(onPaper ? pixels.map((v) => 1 - v) : pixels, `your photo, its middle scaled to ${width} × ${height}${onPaper ? ", dark and bright exchanged" : ""}`);
}

const pad = new DigitPad(byId("pad"), takeDigit);

function takeDigit() {
  const pixels = pad.pixels();
  if (pixels) return use(pixels, "your digit, centred and scaled to 28 × 28");
  state.pixels = null;
  state.run++;
  byId("result").hidden = true;
  byId("input-title").textContent = "";
  byId("input").hidden = true;
  if (state.certifier) says("Draw a digit.");
}

/** Takes the pixels, of an image whose true class is `label` where that is known. */
function use(pixels, title, label = null) {
  state.pixels = pixels;
  state.label = label;
  byId("input").hidden = false;
  paint(byId("input"), pixels, state.model.input_shape);
  byId("input-title").textContent = title;
  return certify();
}

async function load() {
  byId("load").disabled = true;
  says(`Fetching ONNX Runtime and the model, about ${Math.round(14 + state.model.bytes / 1e6)} MB…`);
  try {
    state.certifier = await Certifier.load(`${root()}data/bounds/${state.model.name}.onnx`, state.model.input_shape);
    byId("load").hidden = true;
    await certify();
  } catch (error) {
    says(`The model could not be loaded: ${error.message}`);
  } finally {
    byId("load").disabled = false;
  }
}

/** Radius and margins of the present image; a newer call makes an older one stop. */
async function certify() {
  if (!state.certifier || !state.pixels) return;
  const run = ++state.run;
  delete byId("radius").dataset.value;
  says("Searching for the radius…");
  const began = performance.now();
  const radius = await state.certifier.radius(state.pixels);
  if (run !== state.run) return;
  state.radius = radius;
  const { prediction } = await state.certifier.at(state.pixels, 0);
  byId("result").hidden = false;
  byId("answer").textContent = state.dataset.classes[prediction];
  byId("radius").textContent = radiusText(radius, state.dataset.grey_levels);
  byId("radius").dataset.value = radius;
  const wrong = state.label !== null && state.label !== prediction;
  const warning = wrong ? ` The answer is wrong: the image shows class “${state.dataset.classes[state.label]}”. What is shown below is that the answer stays, not that it is right.` : "";
  says(`Found in ${((performance.now() - began) / 1000).toFixed(1)} s, in this page.${warning}`);
  await bars();
}

async function bars() {
  byId("eps-value").textContent = epsText(state.dataset, Number(slider.value));
  slider.setAttribute("aria-valuetext", byId("eps-value").textContent);
  if (!state.certifier || !state.pixels) return;
  const run = state.run;
  const { margins, prediction } = await state.certifier.at(state.pixels, eps());
  if (run !== state.run) return;
  const classes = state.dataset.classes;
  const rows = margins.map((margin, k) => ({ margin, name: classes[k] })).filter((_, k) => k !== prediction).sort((a, b) => a.margin - b.margin).slice(0, 10);
  const widest = Math.max(1e-9, ...rows.map((r) => Math.abs(r.margin)));
  const holds = rows.every((r) => r.margin > 0);
  byId("verdict").textContent = holds
    ? `Every lower bound is above 0: within eps = ${byId("eps-value").textContent} nothing can change the answer “${classes[prediction]}” (computed in float32).`
    : `Not proved at eps = ${byId("eps-value").textContent}: at least one lower bound is below 0. That does not mean that an attack exists.`;
  byId("verdict").className = holds ? "verdict holds" : "verdict open";
  byId("bars").replaceChildren(
    ...rows.map((r) => {
      const half = (50 * Math.abs(r.margin)) / widest;
      const fill = element("span", { class: `margin ${r.margin > 0 ? "positive" : "negative"}`, style: { width: `${half}%`, left: r.margin > 0 ? "50%" : `${50 - half}%` } });
      return element("tr", {}, element("th", { scope: "row" }, r.name), element("td", {}, element("span", { class: "track", "aria-hidden": "true" }, fill)), element("td", { class: "number" }, r.margin.toFixed(2)));
    }),
  );
}

byId("model").addEventListener("change", () => chooseModel(byId("model").value));
for (const input of document.querySelectorAll("[name=source]")) input.addEventListener("change", chooseSource);
byId("file").addEventListener("change", () => byId("file").files[0] && takePhoto(byId("file").files[0]));
byId("wipe").addEventListener("click", () => pad.clear(true));
byId("load").addEventListener("click", load);
let busy = false;
let again = false;
slider.addEventListener("input", async () => {
  if (busy) return (again = true);
  busy = true;
  do {
    again = false;
    await bars();
  } while (again);
  busy = false;
});
byId("at-radius").addEventListener("click", () => {
  slider.value = Math.floor((state.radius * (state.dataset.grey_levels ? 255 : 1)) / state.dataset.step);
  bars();
});
whereServed(() => chooseModel(location.hash.slice(1) || data.shown));
