// The trade-off chart: natural accuracy against certified accuracy (or ACR), one point a model.
import { line, symbol, symbolCircle, symbolCross, symbolDiamond, symbolSquare, symbolStar, symbolTriangle, symbolWye } from "d3-shape";
import { frame } from "./axes.js";
import { down, element, svg } from "./dom.js";

/** A triangle on its tip, of about the area that d3-shape asks for. */
const symbolTriangleDown = {
  draw(context, size) {
    const r = Math.sqrt(size / (3 * Math.sqrt(3)));
    context.moveTo(0, 2 * r);
    context.lineTo(-Math.sqrt(3) * r, -r);
    context.lineTo(Math.sqrt(3) * r, -r);
    context.closePath();
  },
};
const SHAPES = { acert: symbolCircle, ibp: symbolSquare, cascade: symbolDiamond, standard: symbolTriangle, "mtl-ibp": symbolTriangleDown, "crown-ibp": symbolCross, sabr: symbolWye, own: symbolStar };
const KNOWN = Object.keys(SHAPES);
const PUBLISHED = [symbolCircle, symbolSquare, symbolDiamond, symbolTriangle, symbolCross, symbolWye];

/** The CSS class that colours a method. */
export const methodClass = (method) => `m-${KNOWN.includes(method) ? method : "other"}`;

/** The marker of a method, for legends. */
export function marker(method, size = 90) {
  return svg("path", { d: symbol(SHAPES[method] ?? symbolWye, size)(), class: `mark ${methodClass(method)}` });
}

/**
 * Draws into `host`.
 * points: {x, y, gap: [certified, attacked] or null, decided: {x, y, gap, lines} or null, method, family, kappa, title, lines: [text], href};
 * fronts: {title, label, points: [{x, y, gap}]}.
 */
export function drawScatter(host, { points, fronts, xTitle, yTitle, label }) {
  const all = [...points, ...points.flatMap((p) => p.decided ?? []), ...fronts.flatMap((f) => f.points)];
  const xs = all.map((p) => p.x);
  const highest = Math.max(5, ...all.flatMap((p) => [p.y, p.gap?.[1] ?? 0]));
  const low = Math.max(0, Math.floor(Math.min(100, ...xs) / 5) * 5 - 2);
  const chart = frame(host, {
    x: { domain: [low, Math.min(100, Math.ceil(Math.max(low + 5, ...xs) / 5) * 5 + 1)], title: xTitle },
    y: { domain: [0, Math.min(100, highest * 1.08)], title: yTitle },
    height: Math.max(330, Math.min(470, host.clientWidth * 0.62)),
    label,
  });
  const { root, sx, sy } = chart;
  const path = line((p) => sx(p.x), (p) => sy(p.y));
  const tip = element("div", { class: "tip", role: "status", hidden: true });

  const labels = svg("g", { "aria-hidden": "true" });
  fronts.forEach((front, index) => {
    const group = svg("g", { class: "published" });
    const ordered = front.points.toSorted((a, b) => a.x - b.x);
    if (ordered.length > 1) group.append(svg("path", { d: path(ordered), class: "front" }));
    for (const p of ordered) {
      if (p.gap) group.append(gap(chart, p));
      group.append(svg("path", { d: symbol(PUBLISHED[index % PUBLISHED.length], 34)(), transform: `translate(${sx(p.x)},${sy(p.y)})`, class: "dot" }));
      group.lastChild.addEventListener("pointerenter", () => show(p, front.title, p.lines));
    }
    const places = [ordered.at(-1), ordered[0], ordered[ordered.length >> 1]].map((p) => [sx(p.x) + 6, sy(p.y) - 6]);
    labels.append(svg("text", { class: "front-label", "data-places": JSON.stringify(places) }, front.label));
    root.append(group);
  });
  root.append(labels);

  const families = Map.groupBy(points.filter((p) => p.family), (p) => p.family);
  for (const members of families.values()) {
    const ordered = members.toSorted((a, b) => (a.kappa ?? 0) - (b.kappa ?? 0) || a.x - b.x);
    root.append(svg("path", { d: path(ordered), class: `family ${methodClass(members[0].method)}` }));
  }
  for (const p of points) if (p.gap) root.append(gap(chart, p));
  for (const p of points.filter((q) => q.decided)) {
    const step = svg("line", { x1: sx(p.x), y1: sy(p.y), x2: sx(p.decided.x), y2: sy(p.decided.y), class: `step ${methodClass(p.method)}` });
    root.append(step, gap(chart, { ...p.decided, method: p.method }));
  }
  for (const p of points.toSorted((a, b) => a.x - b.x)) {
    link(p, p, marker(p.own ? "own" : p.method, p.own ? 200 : 110));
    if (p.decided) {
      const mark = marker(p.method, 110);
      mark.classList.add("hollow");
      link(p, p.decided, mark);
    }
  }
  root.addEventListener("pointerleave", hide);
  host.replaceChildren(root, tip);
  declutter(root, points.flatMap((p) => [p, p.decided ?? []].flat()).map((p) => ({ x: sx(p.x) - 7, y: sy(p.y) - 7, width: 14, height: 14 })));

  /** The mark of a model at a place of it: a link to its page that shows what the place stands for. */
  function link(model, place, mark) {
    const dot = svg("a", { href: model.href, transform: `translate(${sx(place.x)},${sy(place.y)})`, "aria-label": `${model.title}: ${place.lines.join(", ")}`, class: model.own ? "own" : null });
    dot.append(svg("circle", { r: 13, class: "target" }), mark);
    for (const event of ["pointerenter", "focus"]) dot.addEventListener(event, () => show(place, model.title, place.lines));
    dot.addEventListener("blur", hide);
    root.append(dot);
  }
  function show(p, title, lines) {
    tip.hidden = false;
    tip.replaceChildren(element("strong", {}, title), ...lines.map((text) => element("div", {}, text)));
    const left = Math.min(sx(p.x) + 14, chart.width - tip.offsetWidth - 4);
    const above = sy(p.y) - tip.offsetHeight - 12;
    Object.assign(tip.style, { left: `${Math.max(2, left)}px`, top: `${above > 0 ? above : sy(p.y) + 16}px` });
  }
  function hide() {
    tip.hidden = true;
  }
}

/** The stretch between what is certified and what attacks leave: the truth lies somewhere on it. */
function gap({ sx, sy }, p) {
  return svg("line", { x1: sx(p.x), x2: sx(p.x), y1: sy(p.gap[0]), y2: sy(p.gap[1]), class: `gap ${p.method ? methodClass(p.method) : ""}` });
}

/**
 * Puts the label of each published front where it lies on nothing in `kept`, boxes, or removes it. Its end comes first;
 * elsewhere it may not lie on published points either.
 */
function declutter(root, kept) {
  const dots = [...root.querySelectorAll(".dot")].map((dot) => dot.transform.baseVal[0].matrix).map(({ e, f }) => ({ x: e - 4, y: f - 4, width: 8, height: 8 }));
  const right = root.viewBox.baseVal.width - 2;
  for (const label of root.querySelectorAll(".front-label")) {
    const place = JSON.parse(label.dataset.places).find(([x, y], i) => {
      label.setAttribute("x", x);
      label.setAttribute("y", y);
      const { width } = label.getBBox();
      if (x + width > right) label.setAttribute("x", right - width);
      const mine = label.getBBox();
      return ![...kept, ...(i ? dots : [])].some((k) => mine.x - 4 < k.x + k.width && k.x < mine.x + mine.width + 4 && mine.y < k.y + k.height && k.y < mine.y + mine.height);
    });
    if (place) kept.push(label.getBBox());
    else label.remove();
  }
}

export const percent = (value) => `${down(value)} %`;
