// Reading the trade-off document: figures of a model at a stop of the slider, published fronts there.
import { down, thousands } from "./dom.js";

/** The radius at stop k, as people write it. */
export function epsText(dataset, k) {
  const value = (k * dataset.step).toFixed(6).replace(/\.?0+$/, "");
  return dataset.grey_levels ? `${value || 0}/255` : value || "0";
}

/** Certified accuracy in percent at stop k, from the stored radii (exact counts). */
export const certifiedAt = (model, k) => (100 * model.counts[k]) / model.n;

/**
 * At stop k, of the n images that were attacked: {attacked, open} in percent, those that the attack left right and those
 * among them that are not certified either; or null. Fewer images are attacked than certified, so charts put the open
 * share on top of the certified accuracy of all: the two are then of one scale, whichever images come first.
 */
export function attackedAt({ attacked: a }, k) {
  return a ? { attacked: (100 * a.unbroken[k]) / a.n, open: (100 * (a.unbroken[k] - a.certified[k])) / a.n, n: a.n } : null;
}

/** Half the width of the 95 % interval of a share (percent) of n images, in points. */
export function halfInterval(share, n) {
  const p = share / 100;
  return 196 * Math.sqrt((p * (1 - p)) / n + 0.9604 / n ** 2);
}

/** The models as points at stop k; `measure` is "certified" or "acr". */
export function modelPoints(dataset, methods, models, k, measure, modelHref) {
  return models.map((m) => {
    const certified = certifiedAt(m, k);
    const eps = epsText(dataset, k);
    const interval = halfInterval(certified, m.n);
    const attack = measure === "acr" ? null : attackedAt(m, k);
    return {
      x: m.accuracy,
      y: measure === "acr" ? m.acr : certified,
      gap: attack && [certified, certified + attack.open],
      method: m.method,
      own: m.own,
      family: m.own || m.kind === "cascade" || m.kappa === null || m.method === "standard" ? null : `${m.method} ${m.eps_max}`,
      kappa: m.kappa,
      title: m.name,
      lines: [
        `${methods[m.method] ?? m.method}${m.kappa === null || m.kappa === undefined ? "" : `, kappa ${m.kappa}`}`,
        `natural ${down(m.accuracy)} %`,
        `certified at ${eps}: ${down(certified)} % ± ${interval.toFixed(1)} (${thousands(m.n)} images)`,
        ...(attack ? [`attacked there: ${down(attack.attacked)} % stay right (${thousands(attack.n)} images)`] : []),
        `ACR ${down(m.acr)} % of ${dataset.eps_max}`,
      ],
      href: modelHref(m),
    };
  });
}

/** "ACE" for "ACE (certify or predict), composed model": what fits beside a point. */
const shortLabel = (method) => method.split(" (")[0];

/** Published fronts for this measure at stop k. */
export function publishedFronts(dataset, k, measure, network) {
  if (measure === "acr") {
    return dataset.acr_fronts.map((f) => ({
      title: `${f.method} (published)`,
      label: shortLabel(f.method),
      source: f.source,
      url: f.url,
      points: f.points.map(([x, y]) => ({ x, y, lines: [`natural ${x} %`, `ACR ${y} % of ${f.eps_max}`, f.source] })),
    }));
  }
  return dataset.fronts
    .filter((f) => f.stop === k && (f.network === network || f.network === "other"))
    .map((f) => ({
      title: `${f.method} (published)`,
      label: shortLabel(f.method) + (f.tuned_on === "validation" ? ", val." : ""),
      source: f.source,
      url: f.url,
      points: f.points.map(([x, y, attacked]) => ({
        x,
        y,
        gap: attacked && [y, attacked],
        lines: [
          `natural ${x} %, certified ${y} %${attacked ? `, attacked ${attacked} %` : ""}`,
          [f.network.toUpperCase(), f.verifier, f.n && `${thousands(f.n)} images`, f.tuned_on && `tuned on ${f.tuned_on} images`].filter(Boolean).join(", "),
          f.source,
        ],
      })),
    }));
}
