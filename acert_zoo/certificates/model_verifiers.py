"""How the lines about one model are proved again: a network by its rigorous bounds, a model of several networks (a
cascade) by the `Prover` that it brings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol

import torch
from torch import Tensor, nn

from acert_zoo.bounds.certifier import RoutedProver
from acert_zoo.bounds.rigorous_crown import RigorousCrown, rigorous_check
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.certificates.lines import Line
from acert_zoo.complete.decider import Decider, Limits
from acert_zoo.complete.verdict import ROBUST
from acert_zoo.network.digest import network_sha256
from acert_zoo.network.reading import read
from acert_zoo.rounding import CROWN_METHODS, PROVED_LEVELS, BoundMethod, RoundingLevel

SEARCH_SECONDS = 600.0  # a line of method "complete"


class ModelVerifier(Protocol):
    """What `verify` asks about a model.

    Attributes:
        network_sha256, input_shape, num_classes: as of `Certifier`.
    """

    network_sha256: str
    input_shape: Sequence[int] | None
    num_classes: int

    def logits(self, images: Tensor) -> Tensor:
        """The model's logits [N, K] of images [N, C, H, W]."""
        ...

    def prove(self, images: Tensor, radii: Tensor, lines: Sequence[Line]) -> tuple[Tensor, Tensor]:
        """(proved bool [N], margin bounds float64 [N], NaN where there is no single one) at `radii`, float64 [N]."""
        ...

    def route_reasons(self, images: Tensor, lines: Sequence[Line]) -> list[str]:
        """What is wrong with what each line says about the member that answered, "" where nothing is."""
        ...


def verifier_of(model: nn.Module, lines: Sequence[Line], shape: Sequence[int] | None = None) -> ModelVerifier:
    """The verifier of a model in eval mode, for the rounding levels of `lines`.

    Args:
        shape: (C, H, W) of the images, for a module that does not say it itself.

    Raises:
        InvalidInputError: the network that was read is not what the module computes; see `read`.
        UnsoundSettingError, UnsupportedLayerError: a level cannot be claimed; see `RigorousNetwork`.
    """
    levels = {proved_level(line.rounding) for line in lines} or {RoundingLevel.REAL_SOUND}
    own = getattr(model, "prover", None)
    if callable(own):
        return _RoutedVerifier(model, {level: own(rounding=level) for level in levels})
    return _NetworkVerifier(model, levels, shape)


def proved_level(rounding: str) -> str:
    """The level at which a line is proved: its own, or real-sound for what floating-point bounds claim."""
    return rounding if rounding in PROVED_LEVELS else RoundingLevel.REAL_SOUND


class _NetworkVerifier:
    """One network: interval bounds, and for lines of a CROWN-family method, where those do not suffice, CROWN's."""

    def __init__(self, model: nn.Module, levels: set[str], shape: Sequence[int] | None) -> None:
        self.input_shape = getattr(model, "input_shape", None)
        reading = read(model, self.input_shape or shape)
        self.network, self.agreement = reading.network, reading.agreement
        self.network_sha256, self.num_classes = network_sha256(self.network), self.network.num_classes
        self.rigorous = {level: RigorousNetwork(self.network, level) for level in levels}
        self.crown: dict[str, RigorousCrown] = {}
        self.model = model
        self.decider: Decider | None = None

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        self.agreement.images(images)
        return self.network(images)

    def prove(self, images: Tensor, radii: Tensor, lines: Sequence[Line]) -> tuple[Tensor, Tensor]:
        labels = torch.tensor([line.label for line in lines])
        margins = torch.full((len(lines),), math.nan, dtype=torch.float64)
        for level, index in _by_level(lines).items():
            margins[index] = self.rigorous[level].margins(images[index], labels[index], radii[index])
        for i in (~(margins > 0) & (radii > 0)).nonzero().flatten().tolist():  # what interval bounds do not prove
            method = lines[i].method
            if method == BoundMethod.COMPLETE:
                margins[i] = self._search(images[i : i + 1], labels[i : i + 1], radii[i].item())
            elif method in CROWN_METHODS:
                check = self.crown.setdefault(method, rigorous_check(self.network, method))
                margins[i] = check.margins(images[i : i + 1], labels[i : i + 1], radii[i : i + 1]).item()
        self.agreement.boxes(images, torch.where(margins > 0, radii, 0.0))
        return margins > 0, margins

    def _search(self, image: Tensor, label: Tensor, radius: float) -> float:
        """The margin that branch and bound proves, -inf where it does not; the line has no proof to follow."""
        if self.decider is None:
            self.decider = Decider(self.model, self.network, Fraction(0))
        (verdict,) = self.decider.at(Fraction(radius), Limits(budget=SEARCH_SECONDS))(image, label)
        return verdict.bound if verdict.status == ROBUST and verdict.bound is not None else -math.inf

    def route_reasons(self, images: Tensor, lines: Sequence[Line]) -> list[str]:
        return ["" if line.route is None else "it names a route, but the model has one network" for line in lines]


class _RoutedVerifier:
    """A model whose members answer in turn: its radii belong to several margins, and each line says who answered."""

    def __init__(self, model: nn.Module, provers: dict[str, RoutedProver]) -> None:
        self.model, self.provers = model, provers
        self.input_shape = getattr(model, "input_shape", None)
        self.network_sha256: str = model.network_sha256  # type: ignore[assignment]
        self.num_classes = int(model.num_classes)  # type: ignore[arg-type]

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits

    def prove(self, images: Tensor, radii: Tensor, lines: Sequence[Line]) -> tuple[Tensor, Tensor]:
        labels = torch.tensor([line.label for line in lines])
        proved = torch.zeros(len(lines), dtype=torch.bool)
        for level, index in _by_level(lines).items():
            proved[index] = self.provers[level].proves(images[index], labels[index], radii[index])
        return proved, torch.full((len(lines),), math.nan, dtype=torch.float64)

    def route_reasons(self, images: Tensor, lines: Sequence[Line]) -> list[str]:
        route = [line.route if type(line.route) is int and 0 <= line.route < 2**31 else -1 for line in lines]
        predictions = torch.tensor([line.prediction for line in lines])
        prover = next(iter(self.provers.values()))
        found = []
        for line, ok in zip(lines, prover.may_answer(images, predictions, torch.tensor(route)).tolist(), strict=True):
            wrong = [] if ok else [f"member {repr(line.route)[:20]} is said to answer, which it does not"]
            found.append("; ".join(wrong + (["it names a margin, but a cascade has none"] if line.margin else [])))
        return found


def _by_level(lines: Sequence[Line]) -> dict[str, Tensor]:
    """Indices [n] of the lines of each rounding level."""
    index: dict[str, list[int]] = {}
    for i, line in enumerate(lines):
        index.setdefault(proved_level(line.rounding), []).append(i)
    return {level: torch.tensor(rows) for level, rows in index.items()}
