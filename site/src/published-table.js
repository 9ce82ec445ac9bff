// The published results that the trade-off chart shows in grey, as a table: for keys, screen readers, and for reading.
import { element, thousands } from "./dom.js";
import { SortableTable } from "./table.js";

const known = (value) => value ?? "–";

/** A table of the points of published fronts, in `host`; `measure()` is the title of what is drawn upward. */
export function publishedTable(host, measure) {
  const columns = [
    { key: "method", title: () => "method", value: (r) => r.method, text: (r) => r.method },
    { key: "x", title: () => "natural %", number: true, value: (r) => r.x, text: (r) => r.x },
    { key: "y", title: measure, number: true, value: (r) => r.y, text: (r) => r.y },
    { key: "attacked", title: () => "attacked %", number: true, value: (r) => r.attacked, text: (r) => known(r.attacked) },
    { key: "network", title: () => "network", value: (r) => r.network, text: (r) => r.network.toUpperCase() },
    { key: "verifier", title: () => "verifier", value: (r) => r.verifier, text: (r) => known(r.verifier) },
    { key: "n", title: () => "images", number: true, value: (r) => r.n, text: (r) => (r.n ? thousands(r.n) : "–") },
    { key: "tuned", title: () => "tuned on", value: (r) => r.tuned, text: (r) => known(r.tuned) },
    { key: "source", title: () => "source", value: (r) => r.source, node: (r) => (r.url ? element("a", { href: r.url }, r.source) : r.source) },
  ];
  const table = new SortableTable(host, columns, "y");
  return (fronts) =>
    table.show(fronts.flatMap((f) => f.points.map((p) => ({ ...f.facts, name: f.facts.method, x: p.x, y: p.y, attacked: p.gap?.[1], source: f.source, url: f.url }))));
}
