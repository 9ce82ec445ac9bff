"""Certified radii of 2,000 test images against the usual way: python benchmarks/certify.py [--n 2000] [--json FILE]

The reference is written as the method's authors describe theirs: auto-LiRPA's IBP margins, and a batched Brent solver
that evaluates the whole batch until every sample has converged (xtol 1e-8, rtol 1e-5), on [0, 1]. Both sides take their
turn on the same images, 500 at a time. Every radius of ours is then checked: proved by a fresh rigorous bound, and not
provable 1e-6 (relative) above it by float64 interval bounds.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import torch
from _measure import interleaved, median_ratio, report, seconds, test_images
from torch import Tensor, nn

import acert_zoo
from acert_zoo.bounds import auto_lirpa_compat
from acert_zoo.bounds.ibp import robust_margin
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.network.tracing import trace

XTOL, RTOL = 1e-8, 1e-5
MAX_ITERATIONS = 100
CHUNK = 500


class Reference:
    """Radii by auto-LiRPA and Brent's method; counts its whole-batch evaluations."""

    def __init__(self, model: nn.Module, input_shape: tuple[int, ...], num_classes: int, batch_size: int) -> None:
        self.library = auto_lirpa_compat.load()
        self.bounded = self.library.BoundedModule(model, torch.zeros(1, *input_shape), device="cpu")
        self.model, self.num_classes, self.batch_size, self.evaluations = model, num_classes, batch_size, 0

    def radii(self, images: Tensor, labels: Tensor) -> Tensor:
        parts = zip(images.split(self.batch_size), labels.split(self.batch_size), strict=True)
        return torch.cat([self._batch(x, y) for x, y in parts])

    @torch.no_grad()
    def _batch(self, images: Tensor, labels: Tensor) -> Tensor:
        others = torch.arange(self.num_classes).expand(len(labels), -1)
        others = others[others != labels.unsqueeze(1)].view(len(labels), -1)
        rows = torch.eye(self.num_classes)[labels].unsqueeze(1) - torch.eye(self.num_classes)[others]

        def margin(eps: Tensor) -> Tensor:
            self.evaluations += 1
            sizes = eps.float().view(-1, 1, 1, 1)
            low, high = (images - sizes).clamp(min=0), (images + sizes).clamp(max=1)
            box = self.library.PerturbationLpNorm(norm=math.inf, eps=1.0, x_L=low, x_U=high)
            x = self.library.BoundedTensor(images, box)
            lower, _ = self.bounded.compute_bounds(x=(x,), C=rows, method="IBP", bound_upper=False)
            return lower.amin(1).double()

        clean = margin(torch.zeros(len(images), dtype=torch.float64))
        far = margin(torch.ones(len(images), dtype=torch.float64))
        root = batched_brent(margin, torch.zeros_like(clean), torch.ones_like(clean), clean, far)
        return torch.where(clean <= 0, 0.0, torch.where(far > 0, 1.0, root))


def batched_brent(f: Callable[[Tensor], Tensor], a: Tensor, b: Tensor, fa: Tensor, fb: Tensor) -> Tensor:
    """Brent's method (1973), every sample with its own bracket, all evaluated until the last has converged."""
    before, now, f_before, f_now = a.clone(), b.clone(), fa.clone(), fb.clone()
    other, f_other = torch.zeros_like(a), torch.zeros_like(a)
    step_before, step = torch.zeros_like(a), torch.zeros_like(a)
    done = ~(fa * fb < 0)
    for _ in range(MAX_ITERATIONS):
        crossed = f_before * f_now < 0
        other, f_other = torch.where(crossed, before, other), torch.where(crossed, f_before, f_other)
        step_before = torch.where(crossed, now - before, step_before)
        step = torch.where(crossed, now - before, step)
        swap = f_other.abs() < f_now.abs()
        before, now, other = (
            torch.where(swap, now, before),
            torch.where(swap, other, now),
            torch.where(swap, now, other),
        )
        f_before, f_now, f_other = (
            torch.where(swap, f_now, f_before),
            torch.where(swap, f_other, f_now),
            torch.where(swap, f_now, f_other),
        )
        delta, half = (XTOL + RTOL * now.abs()) / 2, (other - now) / 2
        done |= (f_now == 0) | (half.abs() < delta)
        if bool(done.all()):
            break
        secant = -f_now * (now - before) / (f_now - f_before)
        slope_before, slope_other = (f_before - f_now) / (before - now), (f_other - f_now) / (other - now)
        quadratic = -f_now * (f_other * slope_other - f_before * slope_before)
        quadratic = quadratic / (slope_other * slope_before * (f_other - f_before))
        trial = torch.where(before == other, secant, quadratic)
        good = (step_before.abs() > delta) & (f_now.abs() < f_before.abs())
        good &= 2 * trial.abs() < torch.minimum(step_before.abs(), 3 * half.abs() - delta)
        step_before, step = torch.where(good, step, half), torch.where(good, trial, half)
        moved = now + torch.where(step.abs() > delta, step, torch.where(half > 0, delta, -delta))
        before, f_before = now, f_now
        now = torch.where(done, now, moved)
        f_now = f(now)
    return now


def check(model: nn.Module, images: Tensor, labels: Tensor, radius: Tensor, rtol: float = 1e-6) -> tuple[int, int]:
    """(radii that a fresh rigorous bound does not prove, radii more than `rtol` below the float64 IBP root)."""
    network = trace(model).detach()
    rigorous, wide = RigorousNetwork(network), network.to(torch.float64)
    found = radius > 0
    x, y, r = images[found], labels[found], radius[found]
    parts = zip(x.split(64), y.split(64), r.split(64), strict=True)
    unproved = short = 0
    with torch.no_grad():
        for u, v, e in parts:
            unproved += int((~rigorous.proves(u, v, e)).sum())
            beyond = robust_margin(wide, u.double(), v, (e * (1 + rtol)).clamp(max=1.0))
            short += int(((beyond > 0) & (e < 1)).sum())
    return unproved, short


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cifar10_kappa025")
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--reference-batch", type=int, default=128)
    parser.add_argument("--json", metavar="FILE", help="also write JSON ('-': to stdout, nothing else)")
    options = parser.parse_args()
    model = acert_zoo.load_model(options.model)
    if not isinstance(model, acert_zoo.AcertModel):
        parser.error(f"--model {options.model}: one network is compared, not a cascade")
    images, labels, description = test_images(str(acert_zoo.model_info(options.model).dataset), options.n)
    reference = Reference(model.classifier, model.input_shape, model.num_classes, options.reference_batch)
    network = trace(model).detach()

    times: dict[str, list[float]] = {"reference": [], "real-sound": [], "float32": []}
    theirs, ours = [], []
    warm = images[:32], labels[:32]
    acert_zoo.certify(model, *warm)
    reference.radii(*warm)
    reference.evaluations = batches = 0
    for x, y in zip(images.split(CHUNK), labels.split(CHUNK), strict=True):
        times["reference"].append(seconds(lambda x=x, y=y: theirs.append(reference.radii(x, y))))
        times["real-sound"].append(seconds(lambda x=x, y=y: ours.append(acert_zoo.certify(model, x, y).radius)))
        times["float32"].append(seconds(lambda x=x, y=y: acert_zoo.certify(model, x, y, rounding="float32")))
        batches += math.ceil(len(x) / options.reference_batch)
    radius, root = torch.cat(ours), torch.cat(theirs)
    unproved, short = check(model, images, labels, radius)

    x, y = images[:128], labels[:128]
    with torch.no_grad():
        passes = interleaved({"forward": lambda: model(x), "ibp": lambda: robust_margin(network, x, y, 0.01)}, 30)
    both = (radius > 0) & (root > 0)
    total = {name: sum(values) for name, values in times.items()}
    rows = [
        ("model", options.model, ""),
        ("images", f"{len(images)} of {description}", ""),
        ("reference, s", total["reference"], ""),
        ("certify (real-sound), s", total["real-sound"], ""),
        ("certify (float32), s", total["float32"], ""),
        ("times faster than the reference", median_ratio(times["reference"], times["real-sound"]), "at least 5"),
        ("real-sound / float32", median_ratio(times["real-sound"], times["float32"]), "at most 1.5"),
        ("IBP evaluation / forward pass", median_ratio(passes["ibp"], passes["forward"]), "at most 2.5"),
        ("whole-batch evaluations per batch of the reference", reference.evaluations / batches, ""),
        ("radii not proved by a fresh rigorous bound", unproved, "0"),
        ("radii more than 1e-6 below the float64 IBP root", short, "0"),
        ("largest relative difference to the reference", ((radius - root)[both].abs() / root[both]).max().item(), ""),
        ("ACR, pixel units", radius.mean().item(), ""),
    ]
    report("certified radii", rows, options.json)


if __name__ == "__main__":
    main()
