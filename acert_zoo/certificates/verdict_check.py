"""Checks every line of a verdict file without any search: proofs are proved again, adversarial images refute again."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from acert_zoo.bounds.real_sound import input_box
from acert_zoo.certificates.recorded_images import Images, image_source
from acert_zoo.certificates.verdict_file import VerdictFile, VerdictHeader, VerdictLine, read_verdicts
from acert_zoo.certificates.verify import named_model
from acert_zoo.complete.leaf_proof import LeafProver
from acert_zoo.complete.proof import Proof, check_proof
from acert_zoo.complete.question import margin_rows
from acert_zoo.complete.refutation import refutes
from acert_zoo.complete.verdict import NOT_ROBUST, PROOF_METHODS, ROBUST, UNDECIDED
from acert_zoo.data.checks import check_eval_mode, check_weights, pixel_sha256, uncompiled
from acert_zoo.errors import AcertZooError
from acert_zoo.exact_numbers import parse_eps, round_down, round_up
from acert_zoo.network.digest import network_sha256
from acert_zoo.network.torch_defaults import under_standard_defaults
from acert_zoo.network.tracing import trace

BOUND_NOISE = 1e-9  # bounds of another machine's order of summation agree this well, relative to max(1, |bound|)


@dataclass(frozen=True)
class VerdictReport:
    """What became of a file: `failed` holds (line number, id, reason); `held` counts verdicts that hold, by status."""

    path: str
    header: VerdictHeader
    held: dict[str, int]
    failed: tuple[tuple[int, str, str], ...]
    failures: tuple[str, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every verdict holds ("undecided" claims nothing, and always does)."""
        return not self.failed and not self.failures

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok}


@under_standard_defaults
def verify_verdicts(
    path: str | os.PathLike[str],
    *,
    model: nn.Module | None = None,
    images: Images = None,
    data_root: str | os.PathLike[str] | None = None,
    resize: bool = False,
    download: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> VerdictReport:
    """Checks a verdict file; arguments as `verify.verify_file`.

    Raises:
        CertificateFileError: the file is damaged or of an unknown schema (a bad proof is a line that fails).
        InvalidInputError: no model or no images to check against.
    """
    started = time.perf_counter()
    file = read_verdicts(path, partial=True)
    header = file.header
    model = named_model(header, download) if model is None else uncompiled(model, header.rounding)
    check_eval_mode(model)
    check_weights(model)
    shape = getattr(model, "input_shape", None)
    checker = _Checker(model, shape, file)
    failures = [f"line {number} was altered (its checksum does not fit)" for number in file.altered]
    if checker.digest != header.network_sha256:
        failures.append(f"the network has digest {checker.digest}, the file says {header.network_sha256}")
    source: Any = image_source(images, header, file.lines, data_root, shape, resize)  # type: ignore[arg-type]
    held = dict.fromkeys((ROBUST, NOT_ROBUST, UNDECIDED), 0)
    failed = []
    for place, line in enumerate(file.lines):
        try:
            image, label = source(place, line)
            reason = checker(line, image, label)
        except AcertZooError as error:
            reason = str(error)
        if reason:
            failed.append((place + 2, line.id, reason))
        else:
            held[line.status] += 1
        if progress is not None:
            progress(place + 1, len(file.lines))
    return VerdictReport(str(path), header, held, tuple(failed), tuple(failures), time.perf_counter() - started)


class _Checker:
    """Checks lines of one file against one network."""

    def __init__(self, model: nn.Module, shape: Any, file: VerdictFile) -> None:
        network = trace(model, shape).detach()
        self.digest, self.file = network_sha256(network), file
        self.prover = LeafProver(network)
        self.classes = network.num_classes
        exact = parse_eps(file.header.eps)
        self.above, self.below = round_up(exact), round_down(exact)

    def __call__(self, line: VerdictLine, image: Tensor, label: int | None) -> str:
        """What is wrong with the verdict, "" where it holds."""
        if pixel_sha256(image) != line.pixel_sha256:
            return "the image has other pixels than the decided one"
        if label is not None and label != line.label:
            return f"the data set has label {label}, the line says {line.label}"
        if line.label >= self.classes:
            return f"the model has classes 0 to {self.classes - 1} only"
        if line.status == ROBUST:
            return self._robust(line, image.unsqueeze(0))
        return self._refuted(line, image.unsqueeze(0)) if line.status == NOT_ROBUST else ""

    def _refuted(self, line: VerdictLine, image: Tensor) -> str:
        data = self.file.data(line)
        if data is None or len(data) != 4 * image.numel():
            return "it has no adversarial image of the right size"
        point = torch.from_numpy(np.frombuffer(data, "<f4").astype(np.float32)).view(image.shape)
        answer = refutes(self.prover.crown.rigorous, image, line.label, self.below, point)
        return (
            "" if answer is not None else f"its image does not refute label {line.label} within {self.file.header.eps}"
        )

    def _robust(self, line: VerdictLine, image: Tensor) -> str:
        if line.method not in PROOF_METHODS:
            return f"method {line.method!r} is not known"
        if line.method == "ibp":
            lowest = float(self.prover.crown.rigorous.margins(image, torch.tensor([line.label]), self.above))
        else:
            data = self.file.data(line)
            if data is None:
                return "it has no proof"
            proof = Proof.from_bytes(data)
            box = input_box(image, torch.tensor([self.above], dtype=torch.float64))
            rows = margin_rows(line.label, self.classes)
            const = torch.zeros(len(rows), dtype=torch.float64)
            boxes = self.prover.boxes(box, refine=proof.refine)
            lowest = min(float(b.min()) for b in check_proof(self.prover, boxes, rows, const, proof))
        if not lowest > 0 or math.isinf(lowest):
            return f"label {line.label} is not proved: the smallest margin bound is {lowest:g}"
        if line.bound is not None and line.bound > lowest + BOUND_NOISE * max(1.0, abs(lowest)):
            return f"the bound proved is {lowest:g}, the line says {line.bound:g}"
        return ""
