"""`decide`: images, a model and a radius in, verdicts out; resumable."""

from __future__ import annotations

import dataclasses
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from acert_zoo._version import __version__
from acert_zoo.certificates.lines import utc_now
from acert_zoo.certificates.verdict_file import VerdictHeader, VerdictLine, VerdictWriter
from acert_zoo.complete.decider import DEFAULT_BUDGET, DEFAULT_MEMORY, Decider, Limits
from acert_zoo.complete.verdict import NOT_ROBUST, ROBUST, STATUSES, Verdict
from acert_zoo.data.checks import check_eval_mode, check_ids, check_images, check_weights, pixel_sha256, uncompiled
from acert_zoo.errors import CertificateFileError, UnsupportedLayerError
from acert_zoo.exact_numbers import parse_eps
from acert_zoo.network.architectures import Normalize
from acert_zoo.network.digest import network_sha256
from acert_zoo.network.reading import read
from acert_zoo.network.torch_defaults import under_standard_defaults
from acert_zoo.rounding import RoundingLevel

BATCH_SIZE = 16  # images attacked at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Decisions:
    """Verdicts of N images at one radius.

    Attributes:
        header: what all images share. lines: one an image, in their order.
        data: packed proof or adversarial pixels of each, where this call decided it (else they are in the file).
    """

    header: VerdictHeader
    lines: tuple[VerdictLine, ...]
    data: tuple[bytes | None, ...]

    def __len__(self) -> int:
        return len(self.lines)

    def __repr__(self) -> str:
        counts = ", ".join(f"{k}={v}" for k, v in self.counts.items())
        return f"Decisions(model={self.header.model!r}, eps={self.header.eps!r}, {counts})"

    @property
    def status(self) -> list[str]:
        """ "robust", "not robust" or "undecided", per image."""
        return [line.status for line in self.lines]

    @property
    def counts(self) -> dict[str, int]:
        """How many images have each status."""
        counted = Counter(self.status)
        return {status: counted[status] for status in STATUSES}

    @property
    def certified_accuracy(self) -> float:
        """Share proved robust, a lower bound of the robust accuracy; NaN of no images."""
        return self.counts[ROBUST] / len(self) if len(self) else math.nan

    @property
    def attacked_accuracy(self) -> float:
        """Share not refuted, an upper bound of the robust accuracy; NaN of no images."""
        return 1 - self.counts[NOT_ROBUST] / len(self) if len(self) else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Header, counts and one record an image, without proofs; for JSON."""
        images = [{k: v for k, v in dataclasses.asdict(line).items() if k != "data"} for line in self.lines]
        return {**dataclasses.asdict(self.header), "counts": self.counts, "images": images}


@under_standard_defaults
def decide(
    model: nn.Module,
    images: Any,
    labels: Any,
    *,
    eps: str | int | float | Fraction,
    budget: float | None = None,
    memory: float | None = None,
    out: str | os.PathLike[str] | None = None,
    ids: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_shape: Sequence[int] | None = None,
    dataset: str | None = None,
    split: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Decisions:
    """Whether each image keeps its label within eps: proved, refuted by an adversarial image, or undecided in time.

    Args:
        model: a model of the zoo, or any `nn.Module` classifier in eval mode made of supported layers; no cascade.
        images, labels: float32 [N, C, H, W] in [0, 1], int64 [N] (None: the model's own predictions).
        eps: radius in pixel units, "2/255" is that fraction.
        budget: seconds an image (60). memory: bytes that a batch of cases, and all waiting ones, may each take (1 GiB).
        out: a verdict file, appended to image by image; the same call again goes on where it was broken off.
        ids, mean, std, input_shape, dataset, split, progress: as in `certify`.

    Raises:
        InvalidInputError: images, labels, eps, limits or `out` cannot be used.
        UnsupportedLayerError: a layer without a rule, or a cascade.
        UnsoundSettingError: train mode, or settings under which nothing is proved.
        CertificateFileError: `out` is damaged or of another run.
    """
    exact = parse_eps(eps)
    limits = Limits(DEFAULT_BUDGET if budget is None else budget, DEFAULT_MEMORY if memory is None else memory)
    model = uncompiled(model, RoundingLevel.REAL_SOUND)
    check_eval_mode(model)
    check_weights(model)
    check_single(model)
    images, _ = check_images(images, None)
    shape = input_shape or getattr(model, "input_shape", None) or tuple(images.shape[1:])
    reading = read(model, shape, mean, std)
    network = reading.network
    images, targets = check_images(images, labels, shape, network.num_classes)
    reading.agreement.images(images)
    if targets is None:
        with torch.no_grad():
            targets = network(images).argmax(1)
    names = check_ids(ids, len(images))
    header = _header(model, network_sha256(network), eps, dataset, split, len(images))
    whole = model if mean is None or std is None else nn.Sequential(Normalize(mean, std), model).eval()
    run = _Run(Decider(whole, network, exact, limits), images, targets, names, progress)
    if out is None:
        lines = run(None)
    else:
        with VerdictWriter(out, header, names) as writer:
            lines = run(writer)
    return Decisions(header, tuple(lines), tuple(run.data.get(name) for name in names))


def check_single(model: nn.Module) -> None:
    """Raises UnsupportedLayerError for a cascade: docs/decide.md says why."""
    if hasattr(model, "route"):
        raise UnsupportedLayerError(
            "complete verification is of single networks; a cascade's members can be decided one by one"
        )


class _Run:
    """One call of `decide`."""

    def __init__(
        self,
        decider: Decider,
        images: Tensor,
        labels: Tensor,
        names: list[str],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.decider, self.images, self.labels, self.names, self.progress = decider, images, labels, names, progress
        self.data: dict[str, bytes | None] = {}

    def __call__(self, writer: VerdictWriter | None) -> list[VerdictLine]:
        done = {} if writer is None else self._kept(writer)
        todo = [i for i, name in enumerate(self.names) if name not in done]
        for begin in range(0, len(todo), BATCH_SIZE):
            rows = torch.tensor(todo[begin : begin + BATCH_SIZE])
            for i, verdict in zip(rows.tolist(), self.decider(self.images[rows], self.labels[rows]), strict=True):
                line, data = self._line(i, verdict), packed(verdict)
                done[line.id] = line if writer is None else writer.append(line, data)
                self.data[line.id] = data
                if self.progress is not None:
                    self.progress(len(done), len(self.names))
        return [done[name] for name in self.names]

    def _kept(self, writer: VerdictWriter) -> dict[str, VerdictLine]:
        kept = {}
        for i, name in enumerate(self.names):
            line = writer.kept.get(name)
            if line is None:
                continue
            if line.pixel_sha256 != pixel_sha256(self.images[i]) or line.label != int(self.labels[i]):
                raise CertificateFileError(
                    f"{str(writer.path)!r} holds {name!r} with other pixels or another label; name another file"
                )
            kept[name] = line
        return kept

    def _line(self, i: int, verdict: Verdict) -> VerdictLine:
        return VerdictLine(
            id=self.names[i],
            pixel_sha256=pixel_sha256(self.images[i]),
            label=int(self.labels[i]),
            prediction=verdict.prediction,
            status=verdict.status,
            method=verdict.method,
            bound=verdict.bound,
            cases=verdict.cases,
            seconds=round(verdict.seconds, 3),
            note=verdict.note,
            data=None,
        )


def packed(verdict: Verdict) -> bytes | None:
    """The proof, or the adversarial image's float32 pixels (little endian, C, H, W)."""
    if verdict.adversarial is not None:
        return verdict.adversarial.contiguous().numpy().astype("<f4").tobytes()
    return None if verdict.proof is None else verdict.proof.to_bytes()


def _header(model: nn.Module, digest: str, eps: Any, dataset: str | None, split: str | None, n: int) -> VerdictHeader:
    info = getattr(model, "info", None)
    return VerdictHeader(
        package_version=__version__,
        model=info.name if info is not None else None,
        model_version=info.version if info is not None else None,
        weights_sha256=getattr(model, "weights_sha256", None) if info is not None else None,
        network_sha256=digest,
        eps=eps.strip() if isinstance(eps, str) else str(Fraction(eps)),
        dataset=dataset,
        split=split,
        n=n,
        created=utc_now(),
    )
