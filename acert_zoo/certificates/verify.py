"""Proves every line of a certificate file again: from the weights and the pixels, with the rigorous bound alone.

Nothing of the search is used. The file names the model; its weights are loaded and their digest compared; each image's
pixels are hashed and compared; the network's answer is compared; and the margin bound of `bounds/rigorous_ibp.py` is
evaluated once, at the radius that the line claims (for a CROWN-family method, where that does not suffice, the bound of
`bounds/rigorous_crown.py`). A radius that was found by floating-point bounds (rounding `float32`
or `float64`) is proved where IBP can prove it, and reported as not proved where it cannot: that is no success.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from acert_zoo.bounds.rigorous_crown import RigorousCrown, rigorous_check
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.certificates.file import Header, Line, read_file
from acert_zoo.certificates.recorded_images import Images, Source, image_source
from acert_zoo.data.checks import check_eval_mode, pixel_sha256
from acert_zoo.errors import AcertZooError, InvalidInputError
from acert_zoo.exact_numbers import parse_eps, round_up
from acert_zoo.network.digest import network_sha256
from acert_zoo.network.tracing import trace
from acert_zoo.rounding import CROWN_METHODS, PROVED_LEVELS, RoundingLevel

PROVED, NOTHING_CLAIMED, NOT_PROVED, FAILED = "proved", "nothing claimed", "not re-proved", "failed"
BATCH_SIZE = 32
LOGIT_NOISE = 1e-5  # float32 logits of another batch size or machine agree this well, relative to the largest
MARGIN_NOISE = 1e-9  # and float64 margin bounds this well
SLOPE_NOISE = 1e-3  # optimised slopes follow the order of summation; what they prove is proved whatever they are


@dataclass(frozen=True)
class LineReport:
    """What became of one line.

    Attributes:
        number: line number in the file (the header is line 1).
        status: "proved"; "nothing claimed" (radius 0; pixels and prediction checked); "not re-proved" (a
            floating-point bound that IBP does not prove); "failed".
        reasons: what is wrong with it, for people.
        margin: the margin bound that was proved at the claimed radius, logit units; None where none was computed.
    """

    number: int
    id: str
    status: str
    reasons: tuple[str, ...] = ()
    radius: str = "0.0"
    margin: float | None = None


@dataclass(frozen=True)
class VerifyReport:
    """What became of a file. `failures` are about the file as a whole, `lines` has one entry per image."""

    path: str
    header: Header
    lines: tuple[LineReport, ...]
    failures: tuple[str, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether everything that the file claims was proved."""
        return not self.failures and all(line.status in (PROVED, NOTHING_CLAIMED) for line in self.lines)

    @property
    def counts(self) -> dict[str, int]:
        """How many lines have each status."""
        counted = Counter(line.status for line in self.lines)
        return {status: counted[status] for status in (PROVED, NOTHING_CLAIMED, NOT_PROVED, FAILED)}

    @property
    def bad_lines(self) -> tuple[LineReport, ...]:
        return tuple(line for line in self.lines if line.status in (NOT_PROVED, FAILED))

    def to_dict(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "ok": self.ok,
            "header": asdict(self.header),
            "failures": list(self.failures),
            "counts": self.counts,
            "lines": [asdict(line) for line in self.lines],
            "seconds": self.seconds,
        }


def verify_file(
    path: str | os.PathLike[str],
    *,
    model: nn.Module | None = None,
    images: Images = None,
    data_root: str | os.PathLike[str] | None = None,
    resize: bool = False,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Proves a certificate file again.

    Args:
        path: the file.
        model: the network, where the file names no registered one (or to check against a given one).
        images: pixels float32 [N, C, H, W] in the order of the lines; or a mapping from id to [C, H, W]; or a folder
            of image files that the ids name. By default the data set and split that the header names, or the files
            that the ids name.
        data_root: folder of the data sets; by default $ACERT_ZOO_DATA.
        resize: scale and convert image files to what the model takes (`acert-zoo certify --resize` did).
        jobs: threads.
        progress: called with (lines done, lines in all).

    Raises:
        CertificateFileError: the file is damaged, incomplete or of an unknown schema.
        InvalidInputError: no model or no images to check against, or they cannot be used.
        UnknownNameError, WeightsError, DatasetNotFoundError: the named model or data set is not there.
    """
    started = time.perf_counter()
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise InvalidInputError(f"jobs must be a positive integer, got {jobs!r}")
    file = read_file(path, keep_altered=True)
    header = file.header
    model = _load(header) if model is None else model
    check_eval_mode(model)
    prover = _Prover(model, [line.rounding for line in file.lines])
    failures = list(_compare_model(header, model, prover.network_sha256))
    if 1 in file.altered:
        failures.append("line 1: the header was altered (its checksum does not fit)")
    source = image_source(images, header, file.lines, data_root, prover.input_shape, resize)

    numbered = list(enumerate(file.lines, start=2))
    chunks = [numbered[i : i + BATCH_SIZE] for i in range(0, len(numbered), BATCH_SIZE)]
    reports: list[LineReport] = []
    threads = torch.get_num_threads()
    share = max(1, threads // jobs)
    try:
        with ThreadPoolExecutor(jobs, initializer=torch.set_num_threads, initargs=(share,)) as pool:
            for part in pool.map(lambda chunk: _check_chunk(chunk, file.altered, source, prover), chunks):
                reports += part
                if progress is not None:
                    progress(len(reports), len(numbered))
    finally:
        torch.set_num_threads(threads)
    return VerifyReport(str(path), header, tuple(reports), tuple(failures), time.perf_counter() - started)


def _load(header: Header) -> nn.Module:
    if header.model is None:
        raise InvalidInputError("the file names no registered model: give the model to check against")
    from acert_zoo.zoo.model import load_model

    return load_model(header.model if header.model_version is None else f"{header.model}.v{header.model_version}")


def _compare_model(header: Header, model: nn.Module, digest: str) -> list[str]:
    found = []
    weights = getattr(model, "weights_sha256", None)
    if header.weights_sha256 is not None and weights is not None and header.weights_sha256 != weights:
        found.append(f"the weights have sha256 {weights}, the file says {header.weights_sha256}")
    if header.network_sha256 != digest:
        found.append(f"the network has digest {digest}, the file says {header.network_sha256}")
    return found


class _Prover:
    """Answers and rigorous margin bounds of the model that the file is about.

    A model that is no single network brings its own `prover(rounding=)`, whose `proves(images, labels, radii)` and
    `may_answer(images, predictions, route)` are bool [N], and says its `network_sha256`, `input_shape` and
    `num_classes` itself.
    """

    def __init__(self, model: nn.Module, roundings: Sequence[str]) -> None:
        levels = {_level(r) for r in roundings}
        own = getattr(model, "prover", None)
        self.own: dict[str, Any] | None = None
        self.rigorous: dict[str, RigorousNetwork] = {}
        self.input_shape = getattr(model, "input_shape", None)
        if callable(own):
            self.own = {level: own(rounding=level) for level in levels}
            self.answer: Callable[[Tensor], Tensor] = model
            self.network_sha256: str = model.network_sha256  # type: ignore[assignment]
            self.num_classes = int(model.num_classes)  # type: ignore[arg-type]
            return
        network = trace(model, self.input_shape).detach()
        self.answer, self.network_sha256, self.num_classes = network, network_sha256(network), network.num_classes
        self.rigorous = {level: RigorousNetwork(network, level) for level in levels}
        self.network = network
        self.crown: dict[str, RigorousCrown] = {}

    @torch.no_grad()
    def __call__(
        self, images: Tensor, labels: Tensor, radii: Tensor, roundings: Sequence[str], methods: Sequence[str]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(logits [N, K], proved bool [N], margin bounds float64 [N], NaN where there is no single one)."""
        proved = torch.zeros(len(labels), dtype=torch.bool)
        margins = torch.full((len(labels),), math.nan, dtype=torch.float64)
        for level in {_level(r) for r in roundings}:
            index = torch.tensor([i for i, r in enumerate(roundings) if _level(r) == level])
            x, y, eps = images[index], labels[index], radii[index]
            if self.own is not None:
                proved[index] = self.own[level].proves(x, y, eps)
            else:
                margins[index] = self.rigorous[level].margins(x, y, eps)
                proved[index] = margins[index] > 0
        if self.own is None:
            for i in (~proved & (radii > 0)).nonzero().flatten().tolist():  # what interval bounds do not prove
                if methods[i] in CROWN_METHODS:
                    check = self.crown.setdefault(methods[i], rigorous_check(self.network, methods[i]))
                    margins[i] = check.margins(images[i : i + 1], labels[i : i + 1], radii[i : i + 1]).item()
                    proved[i] = margins[i] > 0
        return self.answer(images), proved, margins

    @torch.no_grad()
    def route_reasons(self, lines: Sequence[Line], images: Tensor) -> list[str]:
        """What is wrong with each line's route (and margin, which a cascade has none of), "" where nothing is."""
        if self.own is None:
            return ["" if line.route is None else "it names a route, but the model has one network" for line in lines]
        route = [line.route if type(line.route) is int and 0 <= line.route < 2**31 else -1 for line in lines]
        predictions = torch.tensor([line.prediction for line in lines])
        possible = next(iter(self.own.values())).may_answer(images, predictions, torch.tensor(route))
        found = []
        for line, ok in zip(lines, possible.tolist(), strict=True):
            wrong = [] if ok else [f"member {repr(line.route)[:20]} is said to answer, which it does not"]
            found.append("; ".join(wrong + (["it names a margin, but a cascade has none"] if line.margin else [])))
        return found


def _level(rounding: str) -> str:
    """The level at which a line is proved: its own, or real-sound for what floating-point bounds claim."""
    return rounding if rounding in PROVED_LEVELS else RoundingLevel.REAL_SOUND


def _check_chunk(
    chunk: Sequence[tuple[int, Line]], altered: Sequence[int], source: Source, prover: _Prover
) -> list[LineReport]:
    reports: dict[int, LineReport] = {}
    usable: list[tuple[int, Line, Tensor]] = []
    for number, line in chunk:
        reasons = list(line.contradictions())
        if number in altered:
            reasons.insert(0, "the line was altered (its checksum does not fit)")
        image = None
        try:
            image, label = source(number - 2, line)
            if pixel_sha256(image) != line.pixel_sha256:
                reasons.append("the image has other pixels than the certified one")
            if label is not None and line.certifies == "label" and label != line.label:
                reasons.append(f"the data set has label {label}, the line says {line.label}")
        except AcertZooError as error:
            reasons.append(f"its image is not there: {error}")
        if max(line.label, line.prediction) >= prover.num_classes:
            reasons.append(f"the model has classes 0 to {prover.num_classes - 1} only")
        elif image is not None and prover.input_shape and tuple(image.shape) != tuple(prover.input_shape):
            reasons.append(f"its image has shape {tuple(image.shape)}, the model takes {tuple(prover.input_shape)}")
        elif image is not None:
            usable.append((number, line, image))
        reports[number] = LineReport(number, line.id, FAILED, tuple(reasons), line.radius)
    if usable:
        lines = [line for _, line, _ in usable]
        images = torch.stack([image for _, _, image in usable])
        for (number, _, _), wrong in zip(usable, prover.route_reasons(lines, images), strict=True):
            if wrong:
                reports[number] = replace(reports[number], reasons=(*reports[number].reasons, wrong))
        results = prover(
            images,
            torch.tensor([line.label for line in lines]),
            torch.tensor([claimed_radius(line.radius) for line in lines], dtype=torch.float64),
            [line.rounding for line in lines],
            [line.method for line in lines],
        )
        for (number, line, _), logits, proved, margin in zip(usable, *results, strict=True):
            reports[number] = _judge(reports[number], line, logits, bool(proved), float(margin))
    return list(reports.values())


def claimed_radius(text: str) -> float:
    """The smallest float64 that is neither below the decimal `text` nor below its float64 reading."""
    return max(round_up(parse_eps(text)), float(text))


def _judge(report: LineReport, line: Line, logits: Tensor, proved: bool, margin: float) -> LineReport:
    reasons = list(report.reasons)
    scale = max(1.0, float(logits.abs().max()))
    if not float(logits[line.prediction]) >= float(logits.max()) - LOGIT_NOISE * scale:
        reasons.append(f"the model answers {int(logits.argmax())}, the line says {line.prediction}")
    if Fraction(line.radius) == 0:
        return replace(report, status=FAILED if reasons else NOTHING_CLAIMED, reasons=tuple(reasons))
    rigorous = line.rounding in PROVED_LEVELS
    noise = SLOPE_NOISE if line.method in CROWN_METHODS else MARGIN_NOISE
    if rigorous and proved and line.margin is not None and line.margin > margin + noise * scale:
        reasons.append(f"the margin proved is {margin:g}, the line says {line.margin:g}")
    status = FAILED if reasons else PROVED
    if not proved:
        bound = "" if math.isnan(margin) else f": its margin bound is {margin:g}"
        reasons.append(f"label {line.label} is not proved within {line.radius}{bound} ({_level(line.rounding)})")
        if not rigorous and status == PROVED:
            status = NOT_PROVED
            reasons.append(f"it was found by {line.method} in {line.rounding}, whose rounding is not proved")
        else:
            status = FAILED
    return replace(report, status=status, reasons=tuple(reasons), margin=None if math.isnan(margin) else margin)
