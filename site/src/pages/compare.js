// Compare your own: a row from disk, shown among the models of its data set.
import { byId, down, embedded, root, thousands, whenResized } from "../dom.js";
import { addOwnRow, ownRows, parseRow } from "../own-row.js";
import { drawScatter } from "../scatter.js";
import "../shell.js";
import { certifiedAt, epsText, modelPoints } from "../tradeoff-data.js";

const data = embedded("tradeoff-data");

function show(row) {
  const dataset = data.datasets.find((d) => d.name === row.dataset);
  const stop = dataset.reported[0].stop;
  byId("own").hidden = false;
  byId("own-text").textContent = `${row.name}: natural ${down(row.accuracy)} %, certified at ${epsText(dataset, stop)} ${down(certifiedAt(row, stop))} % (${thousands(row.n)} ${dataset.title} test images, ${row.verifier.toUpperCase()}, ${row.rounding}). The star in the chart.`;
  byId("own-link").href = `${root()}index.html#${dataset.name}/${stop}/certified`;
  draw(dataset, stop, `${row.name} among the models of ${dataset.title}`);
}

function draw(dataset, stop, label) {
  const models = [...dataset.models, ...ownRows().filter((r) => r.dataset === dataset.name)];
  drawScatter(byId("chart"), {
    points: modelPoints(dataset, data.methods, models, stop, "certified", (m) => (m.own ? "#own" : `${root()}models/${m.name}.html`)),
    fronts: [],
    xTitle: "natural accuracy, %",
    yTitle: `certified accuracy at ${epsText(dataset, stop)}, %`,
    label,
  });
}

byId("file").addEventListener("change", async () => {
  const file = byId("file").files[0];
  if (!file) return;
  try {
    const row = parseRow(await file.text(), data.datasets);
    addOwnRow(row);
    byId("problem").textContent = "";
    show(row);
  } catch (error) {
    byId("problem").textContent = error.message;
  }
});

/** The chart as wide as its place: the last row's, or what the zoo has. */
function redraw() {
  const last = ownRows().at(-1);
  const dataset = data.datasets.find((d) => d.name === "cifar10") ?? data.datasets[0];
  if (last) show(last);
  else draw(dataset, dataset.reported[0].stop, `Models of ${dataset.title}`);
}
whenResized(byId("chart"), redraw);
