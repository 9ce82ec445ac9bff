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

/**
 * At every stop, certified accuracy of all images plus the open share of the attacked ones: what attacks leave, on the
 * scale of the certified curve. Robust accuracy falls with eps and stays below natural accuracy, so this never rises and
 * begins there.
 */
export function attackCurve(model) {
  let lowest = model.accuracy;
  return model.counts.map((_, k) => (lowest = Math.min(lowest, certifiedAt(model, k) + attackedAt(model, k).open)));
}

/**
 * What complete verification made of the model's first n images at stop k, in percent of these n: {n, natural, certified
 * (robust, by any method), unbroken (no adversarial image known)}; or null where it was not run there.
 */
export function decidedAt(model, k) {
  const d = model.decided?.find((entry) => entry.stop === k);
  const share = (part) => (100 * part) / d.n;
  return d ? { n: d.n, natural: share(d.correct), certified: share(d.certified), unbroken: share(d.unbroken) } : null;
}

/** The share that attacks left right at stop k, from the larger set of images: {value, n} or null. */
export function leftByAttacks(model, k) {
  const [a, d] = [attackedAt(model, k), decidedAt(model, k)];
  if (d && !(a?.n > d.n)) return { value: d.unbroken, n: d.n };
  return a && { value: a.attacked, n: a.n };
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
    const decided = measure === "acr" ? null : decidedAt(m, k);
    return {
      x: m.accuracy,
      y: measure === "acr" ? m.acr : certified,
      gap: attack && !decided ? [certified, Math.min(m.accuracy, certified + attack.open)] : null,
      decided: decided && decidedPoint(decided, eps),
      method: m.method,
      own: m.own,
      family: m.own || m.kind === "cascade" || m.kappa === null || m.method === "standard" ? null : `${m.method} ${m.eps_max}`,
      kappa: m.kappa,
      title: m.name,
      lines: [
        `${methods[m.method] ?? m.method}${m.kappa === null || m.kappa === undefined ? "" : `, kappa ${m.kappa}`}`,
        `natural ${down(m.accuracy)}\u00a0%`,
        `certified at ${eps} by ${m.verifier.toUpperCase()}: ${down(certified)}\u00a0% ± ${interval.toFixed(1)} (${thousands(m.n)} images)`,
        ...(attack ? [`attacked there: ${down(attack.attacked)}\u00a0% stay right (${thousands(attack.n)} images)`] : []),
        `ACR ${down(m.acr)}\u00a0% of ${dataset.eps_max}`,
      ],
      href: modelHref(m),
    };
  });
}

/** A model under complete verification: both coordinates are of the same images. */
function decidedPoint(d, eps) {
  return {
    x: d.natural,
    y: d.certified,
    gap: [d.certified, d.unbroken],
    lines: [
      `complete verification of the first ${thousands(d.n)} images`,
      `natural ${down(d.natural)}\u00a0%`,
      `certified at ${eps} by any method: ${down(d.certified)}\u00a0% ± ${halfInterval(d.certified, d.n).toFixed(1)}`,
      `attacked there: ${down(d.unbroken)}\u00a0% stay right`,
    ],
  };
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
      facts: { method: f.method, network: f.network },
      points: f.points.map(([x, y]) => ({ x, y, lines: [`natural ${x}\u00a0%`, `ACR ${y}\u00a0% of ${f.eps_max}`, f.source] })),
    }));
  }
  return dataset.fronts
    .filter((f) => f.stop === k && (f.network === network || f.network === "other"))
    .map((f) => ({
      title: `${f.method} (published)`,
      label: shortLabel(f.method) + (f.tuned_on === "validation" ? ", val." : ""),
      source: f.source,
      url: f.url,
      facts: { method: f.method, network: f.network, verifier: f.verifier, n: f.n, tuned: f.tuned_on },
      points: f.points.map(([x, y, attacked]) => ({
        x,
        y,
        gap: attacked && [y, attacked],
        lines: [
          `natural ${x}\u00a0%, certified ${y}\u00a0%${attacked ? `, attacked ${attacked}\u00a0%` : ""}`,
          [f.network.toUpperCase(), f.verifier, f.n && `${thousands(f.n)} images`, f.tuned_on && `tuned on ${f.tuned_on} images`].filter(Boolean).join(", "),
          f.source,
        ],
      })),
    }));
}
