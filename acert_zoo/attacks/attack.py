"""Attacks: upper bounds on the true radius of each image, to set beside the certified lower bounds.

PGD (Madry et al. 2018, arXiv 1706.06083) with restarts, and the AutoAttack ensemble of the optional package
pyautoattack. Points are projected exactly onto the box (`exact_box.py`), and an attack only counts where our own code
confirms it: the float64 logits must name another class; for a cascade, see `AdversarialCheck`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from acert_zoo.attacks import autoattack
from acert_zoo.attacks.adversarial_check import AdversarialCheck
from acert_zoo.attacks.exact_box import Box, Eps, attack_box, distance, parse_radii
from acert_zoo.attacks.pgd import Objective, descend, entropy_objective, margin_objective, random_corners, random_points
from acert_zoo.data.checks import check_eval_mode, check_images, check_weights
from acert_zoo.errors import InvalidInputError, RefutedCertificateError, UnknownNameError
from acert_zoo.network.torch_defaults import under_standard_defaults
from acert_zoo.rounding import RoundingLevel

METHODS = ("pgd", "autoattack", "all")


@dataclass
class AttackResult:
    """The nearest adversarial image that was found for each image.

    Attributes:
        radius: [N] float64, its distance |x' - x|_inf rounded up (pixel units): an upper bound on the true radius.
            0 where the image itself is misclassified, inf where nothing was found.
        adversarial: [N, C, H, W] float32, that image (the image itself where nothing was found).
        prediction: [N] int64, what the model answers there.
        attack: name of the attack that found it, "" where nothing was found.
        points: how many points were evaluated.
    """

    radius: Tensor
    adversarial: Tensor
    prediction: Tensor
    attack: list[str]
    points: int = 0

    @property
    def success(self) -> Tensor:
        """[N] bool: an adversarial image is known."""
        return torch.isfinite(self.radius)


@dataclass
class _Search:
    """The state of an attack: what is asked, what was found so far."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    check: AdversarialCheck
    generator: torch.Generator
    batch_size: int
    found: AttackResult = field(init=False)

    def __post_init__(self) -> None:
        n = len(self.images)
        nothing = torch.full((n,), torch.inf, dtype=torch.float64)
        self.found = AttackResult(nothing, self.images.clone(), self.labels.clone(), [""] * n)

    def offer(self, index: Tensor, points: Tensor, attack: str) -> Tensor:
        """Keeps those of `points` (of the images `index`) that are adversarial and nearer; returns which ones err."""
        answers = self.check.predict(points, self.labels[index])
        err = answers != self.labels[index]
        radius = distance(points, self.images[index])
        keep = err & (radius < self.found.radius[index])
        where = index[keep]
        self.found.radius[where] = radius[keep]
        self.found.adversarial[where] = points[keep]
        self.found.prediction[where] = answers[keep]
        for i in where.tolist():
            self.found.attack[i] = attack
        return err

    def objectives(self) -> list[tuple[str, Objective]]:
        """Names and functions to descend; a cascade brings more: its gates' margins, to open and to close them."""
        own: list[tuple[str, Objective]] = [
            ("pgd-margin", margin_objective(self.model)),
            ("pgd-ce", entropy_objective(self.model)),
        ]
        extra: Any = getattr(self.model, "attack_objectives", None)
        return own + (list(extra()) if extra else [])

    def pgd(self, index: Tensor, eps: Tensor, steps: int, restarts: int) -> None:
        """PGD on the images `index` within their radii `eps`, until each has an adversarial image in its box."""
        objectives = self.objectives()
        for run in range(max(restarts, len(objectives))):
            name, objective = objectives[run % len(objectives)]
            index, eps = (t[self.found.radius[index] > eps] for t in (index, eps))
            for part, radii in self._batches(index, eps):
                box = attack_box(self.images[part], radii)
                start = self._start(part, box, run)
                for points in descend(objective, start, self.labels[part], box, radii, steps):
                    self.offer(part, points, name)
                self.found.points += len(part) * (steps + 1)

    def _batches(self, index: Tensor, eps: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        if len(index):
            yield from zip(index.split(self.batch_size), eps.split(self.batch_size), strict=True)

    def _start(self, index: Tensor, box: Box, run: int) -> Tensor:
        if run == 0:  # the image, or, once something is known, the known adversarial image pulled into the box
            return box.clamp(self.found.adversarial[index])
        return random_corners(box, self.generator) if run % 3 == 1 else random_points(box, self.generator)

    def autoattack(self, index: Tensor, eps: Tensor, seed: int, **options: Any) -> None:
        """The ensemble on the images `index` within `eps`."""
        for part, radii in self._batches(index, eps):
            box = attack_box(self.images[part], radii)
            points, count = autoattack.ensemble(
                self.model, self.labels[part], box, batch_size=self.batch_size, seed=seed, **options
            )
            self.offer(part, points, "autoattack")
            self.found.points += count


@under_standard_defaults
def attack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: Eps,
    *,
    method: str = "pgd",
    steps: int = 40,
    restarts: int = 4,
    shrink: int = 0,
    floor: Tensor | None = None,
    program: bool = False,
    batch_size: int = 128,
    seed: int = 0,
    **ensemble_options: Any,
) -> AttackResult:
    """Searches adversarial images with |x' - x|_inf <= eps and pixels in [0, 1].

    Args:
        model: raw pixels in, logits out, in eval mode; or a `Cascade`.
        images, labels: float32 [N, C, H, W] in [0, 1], int64 [N].
        eps: "8/255", a number, or float64 [N]: one radius for each image, in pixel units.
        method: "pgd", "autoattack" (needs pyautoattack) or "all".
        steps, restarts: of PGD.
        shrink: rounds of bisection by PGD between `floor` and the distance found, for nearer adversarial images.
        floor: [N] radii within which none is sought when shrinking (certified radii, say; 0 by default).
        program: the model's float32 answer counts as well as the float64 logits.
        ensemble_options: `attacks`, `iterations`, `queries` of the AutoAttack ensemble.

    Raises:
        InvalidInputError, UnknownNameError: bad images, labels, eps or method.
        UnsoundSettingError: the model is in train mode.
        MissingDependencyError: pyautoattack is needed and not installed.
    """
    if method not in METHODS:
        raise UnknownNameError.near("attack method", method, METHODS)
    least = {"steps": (steps, 1), "restarts": (restarts, 1), "shrink": (shrink, 0), "batch_size": (batch_size, 1)}
    for what, (value, smallest) in {**least, "seed": (seed, 0)}.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < smallest:
            raise InvalidInputError(f"{what} must be an integer of at least {smallest}, got {value!r:.80}")
    check_eval_mode(model)
    check_weights(model)
    images, given = check_images(images, labels, getattr(model, "input_shape", None))
    if given is None:
        raise InvalidInputError("an attack needs labels")
    radii = parse_radii(eps, len(images))
    low = torch.zeros_like(radii) if floor is None else parse_radii(floor, len(images))
    generator = torch.Generator().manual_seed(int(seed))
    search = _Search(model, images, given, AdversarialCheck(model, program), generator, batch_size)
    everything = torch.arange(len(images))
    for part in everything.split(batch_size):
        search.offer(part, images[part], "none")
    search.found.points += len(images)
    if method in ("pgd", "all"):
        search.pgd(everything, radii, steps, restarts)
    if method in ("autoattack", "all"):
        left = everything[search.found.radius > radii]
        search.autoattack(left, radii[left], seed, **ensemble_options)
    for _ in range(shrink):
        high = search.found.radius
        index = everything[torch.isfinite(high) & (high > low * (1 + 1e-3)) & (high > 0)]
        middle = (low[index] + high[index]) / 2
        search.pgd(index, middle, steps, 1)
        failed = index[search.found.radius[index] > middle]
        low[failed] = middle[search.found.radius[index] > middle]
    return search.found


@dataclass
class AttackReport:
    """Certified beside attacked radii: the true radius of every image lies between them.

    Attributes:
        certified, attacked: [N] float64 (attacked: inf where no adversarial image was found).
        result: the adversarial images.
    """

    certified: Tensor
    attacked: Tensor
    result: AttackResult

    @property
    def gap(self) -> Tensor:
        """[N] attacked - certified radius, >= 0."""
        return self.attacked - self.certified

    def to_dict(self) -> dict[str, Any]:
        """For JSON: None stands for an unknown (infinite) attacked radius."""
        attacked = [None if r == float("inf") else r for r in self.attacked.tolist()]
        return {
            "certified": self.certified.tolist(),
            "attacked": attacked,
            "gap": [None if a is None else a - c for a, c in zip(attacked, self.certified.tolist(), strict=True)],
            "attack": self.result.attack,
            "points": self.result.points,
        }


@under_standard_defaults
def attack_certificates(
    model: nn.Module,
    images: Tensor,
    certificates: Any,
    *,
    method: str = "pgd",
    steps: int = 20,
    restarts: int = 3,
    shrink: int = 5,
    batch_size: int = 128,
    seed: int = 0,
    **ensemble_options: Any,
) -> AttackReport:
    """Attacks every certified image, first within its certified radius, then beyond it for an upper bound.

    Args:
        certificates: of `certify` for the same model and images, in the same order.
        method, steps, restarts, shrink, batch_size, seed, ensemble_options: as in `attack`.

    Raises:
        RefutedCertificateError: an adversarial image lies within a certified radius; the message names the images.
        Other errors as `attack`.
    """
    certified = torch.as_tensor(certificates.radius, dtype=torch.float64)
    labels = torch.as_tensor(certificates.label)
    program = certificates.rounding == RoundingLevel.FLOAT32_DEPLOYED
    options: dict[str, Any] = {"method": method, "steps": steps, "restarts": restarts, "program": program}
    options |= {"batch_size": batch_size, "seed": seed, **ensemble_options}
    result = attack(model, images, labels, certified, **options)
    refuse_refuted(certified, result.radius)
    options["method"] = "pgd"  # beyond the certified radius any upper bound will do
    reach = (2 * certified).clamp(min=4 / 255)
    while True:
        left = (~result.success & (reach <= 1)).nonzero().flatten()
        if not len(left):
            break
        found = attack(model, images[left], labels[left], reach[left], **options, shrink=shrink, floor=certified[left])
        result.points += found.points
        result.radius[left], result.adversarial[left] = found.radius, found.adversarial
        result.prediction[left] = found.prediction
        for i, name in zip(left.tolist(), found.attack, strict=True):
            result.attack[i] = name
        reach[left] = torch.where(reach[left] < 1, (2 * reach[left]).clamp(max=1.0), 2.0)
    refuse_refuted(certified, result.radius)
    return AttackReport(certified, result.radius, result)


def refuse_refuted(certified: Tensor, attacked: Tensor) -> None:
    """Raises RefutedCertificateError where an adversarial image lies within a certified radius (closed ball)."""
    bad = ((certified > 0) & (attacked <= certified)).nonzero().flatten().tolist()
    if bad:
        shown = ", ".join(f"{i} (certified {certified[i].item()!r}, attacked {attacked[i].item()!r})" for i in bad[:8])
        raise RefutedCertificateError(f"{len(bad)} certificates are REFUTED by adversarial images: image {shown}")
