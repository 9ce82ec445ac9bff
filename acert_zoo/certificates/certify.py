"""`certify`: images and a model in, certificates out; bounded memory, resumable, one pipeline for every method."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor, nn

from acert_zoo._version import __version__
from acert_zoo.bounds.certifier import BatchCertificates, Certifier
from acert_zoo.bounds.radius_search import DEFAULT_BATCH_SIZE
from acert_zoo.certificates.certifiers import make_certifier
from acert_zoo.certificates.decide import Decisions
from acert_zoo.certificates.decide import decide as decide_images
from acert_zoo.certificates.lines import Header, Line, radius_text, utc_now
from acert_zoo.certificates.results import Certificates
from acert_zoo.certificates.writer import CertificateWriter
from acert_zoo.data.checks import check_ids, check_images, pixel_sha256
from acert_zoo.data.image_collections import gather_images
from acert_zoo.errors import CertificateFileError, InvalidInputError
from acert_zoo.network.torch_defaults import STANDARD, check_same_under
from acert_zoo.rounding import BoundMethod, RoundingLevel

SLOW_BATCH_SIZE = 8


@overload
def certify(
    model: nn.Module | str, images: Any, labels: Any = None, *, decide: Literal[False] = False, **options: Any
) -> Certificates: ...


@overload
def certify(
    model: nn.Module | str,
    images: Any,
    labels: Any = None,
    *,
    eps: str | int | float | Fraction,
    decide: Literal[True],
    **options: Any,
) -> Decisions: ...


def certify(  # type: ignore[misc]  # the overloads' options are the arguments below, which take no others
    model: nn.Module | str,
    images: Any,
    labels: Any = None,
    *,
    method: str = BoundMethod.IBP,
    rounding: str = RoundingLevel.REAL_SOUND,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    out: str | os.PathLike[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    budget: float | None = None,
    ids: Sequence[str] | None = None,
    input_shape: Sequence[int] | None = None,
    dataset: str | None = None,
    split: str | None = None,
    device: str | torch.device = "cpu",
    eps: str | int | float | Fraction | None = None,
    decide: bool = False,
) -> Certificates | Decisions:
    """Certified l-inf radii: how far every pixel may move before the model could change its answer.

    Args:
        model: a model of the zoo, a cascade, or any `nn.Module` classifier in eval mode made of supported layers; or a
            name, as `load_model` takes it.
        images: raw pixels, float32 [N, C, H, W] in [0, 1], as a tensor or array; or a list of such images [C, H, W] or
            of `PIL.Image` pictures of the model's size; or a torch `Dataset` or `DataLoader` (that does not shuffle).
        labels: int64 [N]; misclassified images get radius 0. Without labels those of the data set or loader count, and
            where it has none, the model's own prediction is certified.
        method: "ibp"; "complete" (bisection over eps with the verdicts of `decide`, level real-sound); or "crown-ibp",
            "crown", "alpha-crown", "best", which need auto-LiRPA, are slower, and whose radii, where larger than
            IBP's, are real-sound if our own rigorous check confirms them, else bounds in floating point only
            (recorded per image).
        rounding: what an IBP radius is proved for: "float32" (nothing: floating-point bounds), "real-sound" (the
            network in real arithmetic with the stored weights), "float32-deployed" (also the float32 program).
        batch_size: images searched at a time; memory grows with it, not with N. By default 256, for slow methods 8.
            Radii depend on it by less than a millionth.
        progress: called with (images done, images in all) at the beginning and after every batch.
        out: a certificate file, appended to batch by batch. The same call again goes on where it was broken off, at
            the first batch that lacks an image, and ends with the radii, bit for bit, of a call that was not broken
            off (of methods without a budget of time, with as many threads on the same machine). No two calls write
            one file at once.
        mean, std: normalisation constants, for a model that takes normalised images.
        budget: seconds per image for all methods but IBP.
        ids: one distinct name per image; "0", "1", ... by default.
        input_shape: (C, H, W), where the model does not say it and `images` is empty.
        dataset, split: recorded with the result.
        device: "cpu", or "cuda" for the float32 search of a single network, and for its float64 proofs where that
            device passes a probe of its arithmetic; else they run on the CPU (docs/soundness.md).
        eps, decide: with `decide=True` no radius is searched: each image is decided at `eps`, as by `acert_zoo.decide`,
            whose `Decisions` are returned.

    Raises:
        InvalidInputError: images, labels, ids, batch_size, budget, dataset, split or `out` cannot be used.
        UnknownNameError: unknown method or rounding level.
        UnsupportedLayerError: a layer that no bound covers, by name, and what is supported.
        UnsoundSettingError: train mode; settings under which the rounding level proves nothing; or another default
            dtype or device of torch is set, and the model computes something else under it.
        CertificateFileError: `out` is damaged or of another run.
    """
    with STANDARD.applied() as caller:
        if isinstance(model, str):
            from acert_zoo.zoo.load import load_model

            model = load_model(model)
        images, labels = gather_images(images, labels, input_shape or getattr(model, "input_shape", None))
        images, _ = check_images(images, None)
        if decide or eps is not None:
            _check_decide(decide, eps, method, rounding, batch_size, device)
            return decide_images(
                model,
                images,
                labels,
                eps=eps,  # type: ignore[arg-type]
                budget=budget,
                out=out,
                ids=ids,
                mean=mean,
                std=std,
                input_shape=input_shape,
                dataset=dataset,
                split=split,
                progress=progress,
            )
        certifier = make_certifier(
            model,
            images.shape,
            method=method,
            rounding=rounding,
            mean=mean,
            std=std,
            budget=budget,
            input_shape=input_shape,
            device=device,
        )
        check_same_under(caller, model, images)
        images, targets = check_images(images, labels, certifier.input_shape, certifier.num_classes)
        names = check_ids(ids, len(images))
        for what, value in (("dataset", dataset), ("split", split)):
            if value is not None and not (isinstance(value, str) and 0 < len(value) <= 1024):
                raise InvalidInputError(f"{what} must be a name or None, got {value!r:.80}")
        size = images_at_a_time(batch_size, method)
        if progress is not None and not callable(progress):
            raise InvalidInputError(f"progress must be a function of (done, in all), got {progress!r:.80}")
        header = run_header(model, certifier, method, targets is not None, dataset, split, len(images))
        digests = [pixel_sha256(image) for image in images]
        if out is None:
            lines = _run(certifier, images, targets, names, digests, size, progress, {}, None)
            return Certificates.from_lines(header, lines)
        with CertificateWriter(out, header) as writer:
            kept = _still_valid(writer, targets, names, digests)
            writer.expect(names)
            lines = _run(certifier, images, targets, names, digests, size, progress, kept, writer)
            writer.finish()
        return Certificates.from_lines(writer.header, lines)


def _check_decide(
    decide: bool, eps: Any, method: str, rounding: str, batch_size: int | None, device: str | torch.device
) -> None:
    if not decide or eps is None:
        raise InvalidInputError("decide=True needs eps, and eps needs decide=True: radii are searched, not given")
    if method not in (BoundMethod.IBP, BoundMethod.COMPLETE) or rounding != RoundingLevel.REAL_SOUND:
        raise InvalidInputError(
            f"decide=True tries every method, at level 'real-sound'; got method {method!r}, rounding {rounding!r}"
        )
    if batch_size is not None or str(device) != "cpu":
        raise InvalidInputError(f"decide=True has no batch_size and no device, got {batch_size!r}, {str(device)!r}")


def _run(
    certifier: Certifier,
    images: Tensor,
    targets: Tensor | None,
    names: list[str],
    digests: list[str],
    batch_size: int,
    progress: Callable[[int, int], None] | None,
    kept: dict[str, Line],
    writer: CertificateWriter | None,
) -> list[Line]:
    """Certifies in batches that only the position decides, so that a run that goes on repeats the sums of one that was
    never broken off: a batch that lacks an image is certified as a whole, and what was missing of it is kept."""
    done = dict(kept)
    if progress is not None:
        progress(len(done), len(names))
    for begin in range(0, len(names), batch_size):
        rows = slice(begin, begin + batch_size)
        missing = {name for name in names[rows] if name not in done}
        if not missing:
            continue
        started = time.perf_counter()
        batch = images[rows].cpu()
        result = certifier(batch, None if targets is None else targets[rows].cpu())
        seconds = (time.perf_counter() - started) / len(batch)
        lines = batch_lines(result, names[rows], digests[rows], targets is not None, seconds)
        part = [line for line in lines if line.id in missing]
        if writer is not None:
            writer.append(part)
        done.update((line.id, line) for line in part)
        if progress is not None:
            progress(len(done), len(names))
    return [done[name] for name in names]


def batch_lines(
    result: BatchCertificates, names: list[str], digests: list[str], labelled: bool, seconds: float
) -> list[Line]:
    """What a certifier found for a batch, as the lines of a file."""
    margins = [m if math.isfinite(m) else None for m in result.margin.tolist()]
    columns = zip(
        names, digests, result.label.tolist(), result.prediction.tolist(), result.radius.tolist(), margins, strict=True
    )
    return [
        Line(
            id=name,
            pixel_sha256=digest,
            label=label,
            prediction=prediction,
            certifies="label" if labelled else "prediction",
            radius=radius_text(radius),
            margin=margin,
            method=result.method[i],
            rounding=result.roundings[i],
            seconds=seconds,
            route=None if result.route is None else result.route[i],
        )
        for i, (name, digest, label, prediction, radius, margin) in enumerate(columns)
    ]


def _still_valid(
    writer: CertificateWriter, targets: Tensor | None, names: list[str], digests: list[str]
) -> dict[str, Line]:
    """The kept lines of this run's images; an error where a name now stands for other pixels or another label."""
    valid: dict[str, Line] = {}
    for i, name in enumerate(names):
        line = writer.kept.get(name)
        if line is None:
            continue
        if line.pixel_sha256 != digests[i]:
            raise CertificateFileError(f"{str(writer.path)!r} holds {name!r} with other pixels; name another file")
        if targets is not None and line.label != int(targets[i]):
            raise CertificateFileError(
                f"{str(writer.path)!r} holds {name!r} with label {line.label}, not {int(targets[i])}; name another file"
            )
        valid[name] = line
    return valid


def run_header(
    model: nn.Module,
    certifier: Certifier,
    method: str,
    labelled: bool,
    dataset: str | None,
    split: str | None,
    n: int,
) -> Header:
    """The header of a run over `n` images."""
    info = getattr(model, "info", None)
    return Header(
        package_version=__version__,
        model=info.name if info is not None else None,
        model_version=info.version if info is not None else None,
        weights_sha256=getattr(model, "weights_sha256", None) if info is not None else None,
        network_sha256=certifier.network_sha256,
        method=method,
        rounding=certifier.rounding,
        certifies="label" if labelled else "prediction",
        dataset=dataset,
        split=split,
        n=n,
        created=utc_now(),
    )


def images_at_a_time(batch_size: int | None, method: str) -> int:
    """`batch_size`, checked; where it is None, the method's own."""
    if batch_size is None:  # slow methods take seconds an image: what is done is to be kept, and seen, often
        return DEFAULT_BATCH_SIZE if method == BoundMethod.IBP else SLOW_BATCH_SIZE
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise InvalidInputError(f"batch_size must be a positive integer, got {batch_size!r}")
    return int(batch_size)
