// Certified accuracy over eps, as steps; above it, where it is known, the images that are neither certified nor broken by an attack.
import { area, curveStepAfter, curveStepBefore, line } from "d3-shape";
import { frame } from "./axes.js";
import { down, element, svg, thousands } from "./dom.js";
import { attackCurve, attackedAt, certifiedAt, decidedAt, epsText } from "./tradeoff-data.js";

/** Draws the curve of `model` into `host`; what it returns moves the cursor and tells the stop under the pointer. */
export function drawCurve(host, dataset, model) {
  const unit = dataset.step;
  const series = model.counts.map((_, k) => ({ eps: k * unit, y: certifiedAt(model, k) }));
  const left = model.attacked ? attackCurve(model) : [];
  const attacked = left.map((value, k) => ({ ...series[k], left: value }));
  const top = Math.max(model.accuracy, series[0].y, 5);
  const chart = frame(host, {
    x: { domain: [0, dataset.last * unit], title: dataset.grey_levels ? "eps, in grey levels (1/255)" : "eps, in pixel units (white is 1)" },
    y: { domain: [0, Math.min(100, top * 1.08)], title: "% of test images" },
    height: Math.max(260, Math.min(360, host.clientWidth * 0.5)),
    label: `Certified ${attacked.length ? "and attacked " : ""}accuracy of ${model.name} over eps`,
  });
  const { root, sx, sy, margin, width, height } = chart;
  const x = (p) => sx(p.eps);
  const y = (p) => sy(p.y);
  if (attacked.length) {
    const over = (p) => sy(p.left);
    root.append(
      svg("path", { class: "curve-gap", d: area(x, y, over)(attacked) }),
      svg("path", { class: "attack", d: line(x, over).curve(curveStepAfter)(attacked) }),
    );
  }
  root.append(
    svg("path", { class: "curve-area", d: area(x, sy(0), y).curve(curveStepBefore)(series) }),
    svg("path", { class: "curve", d: line(x, y).curve(curveStepBefore)(series) }),
  );
  if (model.n === model.images) {
    root.append(
      svg("line", { class: "natural", x1: margin.left, x2: width - margin.right, y1: sy(model.accuracy), y2: sy(model.accuracy) }),
      svg("text", { class: "front-label", x: width - margin.right - 4, y: sy(model.accuracy) - 6, "text-anchor": "end" }, `natural ${down(model.accuracy)} %`),
    );
  }
  const decided = model.decided.map((d) => ({ eps: d.stop * unit, ...decidedAt(model, d.stop) }));
  for (const d of decided) {
    root.append(
      svg("line", { class: "gap m-acert", x1: x(d), x2: x(d), y1: sy(d.certified), y2: sy(d.unbroken) }),
      svg("circle", { class: "mark hollow m-acert decided", r: 5.5, cx: x(d), cy: sy(d.certified) }),
    );
  }
  const cursor = svg("g", { class: "cursor", "aria-hidden": "true" }, svg("line", { y1: margin.top, y2: height - margin.bottom }), svg("circle", { r: 5 }));
  root.append(cursor);
  host.replaceChildren(root);
  return {
    move(k) {
      cursor.setAttribute("transform", `translate(${sx(k * unit)},0)`);
      cursor.lastChild.setAttribute("cy", sy(certifiedAt(model, k)));
    },
    stopAt: (event) => {
      const box = root.getBoundingClientRect();
      const eps = sx.invert(((event.clientX - box.left) * width) / box.width);
      return Math.max(0, Math.min(dataset.last, Math.round(eps / unit)));
    },
    root,
    text: (k) => element("span", {}, element("strong", {}, `${down(certifiedAt(model, k))} %`), ` of the images are certified at eps = ${epsText(dataset, k)} by ${model.verifier.toUpperCase()}`, attackText(model, k)),
  };
}

function attackText(model, k) {
  const [a, d] = [attackedAt(model, k), decidedAt(model, k)];
  return [
    d ? `; of the first ${thousands(d.n)}, ${down(d.certified)} % by any method` : "",
    a ? `; of the first ${thousands(a.n)}, an attack left ${down(a.attacked)} %` : "",
  ].join("");
}
