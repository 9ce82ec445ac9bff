// A chart's frame: scales, grid, axes with their titles.
import { scaleLinear } from "d3-scale";
import { svg } from "./dom.js";

/** Scales and an <svg> of the width that `host` has. `x` and `y`: {domain: [from, to], title, format}. */
export function frame(host, { x, y, height, label }) {
  const width = Math.max(280, host.clientWidth);
  const margin = { left: 46, right: 14, top: 26, bottom: 44 };
  const sx = scaleLinear(x.domain, [margin.left, width - margin.right]);
  const sy = scaleLinear(y.domain, [height - margin.bottom, margin.top]);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": label, class: "chart" });
  const grid = svg("g", { class: "grid", "aria-hidden": "true" });
  const xFormat = x.format ?? String;
  for (const t of sx.ticks(width < 480 ? 5 : 8)) {
    grid.append(
      svg("line", { x1: sx(t), x2: sx(t), y1: margin.top, y2: height - margin.bottom }),
      svg("text", { x: sx(t), y: height - margin.bottom + 16, "text-anchor": "middle" }, xFormat(t)),
    );
  }
  for (const t of sy.ticks(6)) {
    grid.append(
      svg("line", { x1: margin.left, x2: width - margin.right, y1: sy(t), y2: sy(t) }),
      svg("text", { x: margin.left - 7, y: sy(t) + 4, "text-anchor": "end" }, (y.format ?? String)(t)),
    );
  }
  grid.append(
    svg("text", { x: (margin.left + width - margin.right) / 2, y: height - 8, "text-anchor": "middle", class: "axis-title" }, x.title),
    svg("text", { x: 2, y: 13, class: "axis-title" }, y.title),
  );
  root.append(grid);
  return { root, sx, sy, width, height, margin };
}
