// A row that `acert-zoo evaluate` wrote: read from the visitor's disk, kept in this tab only.

const KEY = "own rows";
const FORMAT = "acert-zoo-evaluation";

/** The row in `text`; an Error that says what is wrong otherwise. */
export function parseRow(text, datasets) {
  let row;
  try {
    row = JSON.parse(text);
  } catch {
    throw new Error("This file is not JSON. Choose the file that acert-zoo evaluate --out wrote.");
  }
  if (row?.format !== FORMAT || row.schema_version !== 1) throw new Error(`This is not a file of acert-zoo evaluate (format "${FORMAT}").`);
  const dataset = datasets.find((d) => d.name === row.dataset);
  if (!dataset) throw new Error(`The data set ${JSON.stringify(row.dataset)} is not in this gallery.`);
  if (!Array.isArray(row.counts) || row.counts.length !== dataset.last + 1) throw new Error("Its eps grid is another version's: run acert-zoo evaluate again.");
  const numbers = [row.accuracy, row.acr, row.n, ...row.counts];
  if (!numbers.every((v) => typeof v === "number" && v >= 0) || row.accuracy > 100 || row.n < 1 || row.counts.some((c) => c > row.n)) {
    throw new Error("Some of its numbers are missing or out of range.");
  }
  return { ...row, name: String(row.name).slice(0, 80), own: true, method: "own", kind: "model", kappa: null, reported: [], attacked: null, decided: [] };
}

export const ownRows = () => JSON.parse(sessionStorage.getItem(KEY) ?? "[]");

export function addOwnRow(row) {
  sessionStorage.setItem(KEY, JSON.stringify([...ownRows().filter((r) => r.name !== row.name || r.dataset !== row.dataset), row]));
}

export const forgetOwnRows = () => sessionStorage.removeItem(KEY);
