// The page of one model: its curve with a slider. Everything else is in the page already.
import { drawCurve } from "../curve.js";
import { byId, embedded, whenResized } from "../dom.js";
import "../shell.js";
import { epsText } from "../tradeoff-data.js";

const { dataset, model } = embedded("curve-data");
const slider = byId("eps");
let chart = null;

function show(k) {
  slider.value = k;
  slider.setAttribute("aria-valuetext", epsText(dataset, k));
  chart.move(k);
  byId("readout").replaceChildren(chart.text(k));
}

function draw() {
  chart = drawCurve(byId("curve"), dataset, model);
  chart.root.addEventListener("pointermove", (event) => show(chart.stopAt(event)));
  show(Number(slider.value));
}

slider.max = dataset.last;
slider.value = dataset.reported[0].stop;
slider.addEventListener("input", () => show(Number(slider.value)));
draw();
whenResized(byId("curve"), draw);
