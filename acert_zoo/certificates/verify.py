"""Proves every line of a certificate file again: from the weights and the pixels, with the rigorous bound alone.

No search and no float32 bound is used; what is shared with `certify` (the reading of the network, the float64 rules):
docs/certificates.md. The file names the model; its weights are loaded and their digest compared; each image's
pixels are hashed and compared; the network's answer is compared; and the margin bound of `bounds/rigorous_ibp.py` is
evaluated once, at the radius that the line claims (for a CROWN-family method, where that does not suffice, the bound of
`bounds/rigorous_crown.py`). A radius that was found by floating-point bounds (rounding `float32`
or `float64`) is proved where IBP can prove it, and reported as not proved where it cannot: that is no success.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction

import torch
from torch import Tensor, nn

from acert_zoo.certificates.file import read_file
from acert_zoo.certificates.lines import Header, Line
from acert_zoo.certificates.model_verifiers import ModelVerifier, proved_level, verifier_of
from acert_zoo.certificates.recorded_images import Images, Source, image_source
from acert_zoo.certificates.verdict_file import VerdictHeader
from acert_zoo.certificates.verify_report import (
    FAILED,
    NOT_PROVED,
    NOTHING_CLAIMED,
    PROVED,
    LineReport,
    VerifyReport,
)
from acert_zoo.data.checks import check_eval_mode, check_weights, pixel_sha256, uncompiled
from acert_zoo.errors import AcertZooError, DownloadError, InvalidInputError, UnknownNameError
from acert_zoo.exact_numbers import parse_eps, round_up
from acert_zoo.network.torch_defaults import under_standard_defaults
from acert_zoo.rounding import CROWN_METHODS, PROVED_LEVELS, BoundMethod

BATCH_SIZE = 32
LOGIT_NOISE = 1e-5  # float32 logits of another batch size or machine agree this well, relative to the largest
MARGIN_NOISE = 1e-9  # and float64 margin bounds this well
SLOPE_NOISE = 1e-3  # optimised slopes follow the order of summation; what they prove is proved whatever they are


@under_standard_defaults
def verify_file(
    path: str | os.PathLike[str],
    *,
    model: nn.Module | None = None,
    images: Images = None,
    data_root: str | os.PathLike[str] | None = None,
    resize: bool = False,
    download: bool = False,
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
        download: fetch the registered model that the file names from the Hub, where it is not on this machine. A file
            of unknown origin reaches no network without it, and never any other place than the registry's.
        jobs: threads.
        progress: called with (lines done, lines in all).

    Raises:
        CertificateFileError: the file is damaged, incomplete or of an unknown schema.
        InvalidInputError: no model or no images to check against, or they cannot be used.
        WeightsError, DatasetNotFoundError: the named model or data set is not there.
    """
    started = time.perf_counter()
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise InvalidInputError(f"jobs must be a positive integer, got {jobs!r}")
    file = read_file(path, keep_altered=True)
    header = file.header
    model = named_model(header, download) if model is None else uncompiled(model, header.rounding)
    check_eval_mode(model)
    check_weights(model)
    verifier = verifier_of(model, file.lines, _shape_of(images))
    failures = list(_compare_model(header, model, verifier.network_sha256))
    if 1 in file.altered:
        failures.append("line 1: the header was altered (its checksum does not fit)")
    source = image_source(images, header, file.lines, data_root, verifier.input_shape, resize)

    numbered = list(enumerate(file.lines, start=2))
    chunks = [numbered[i : i + BATCH_SIZE] for i in range(0, len(numbered), BATCH_SIZE)]
    reports: list[LineReport] = []
    threads = torch.get_num_threads()
    share = max(1, threads // jobs)
    try:
        with ThreadPoolExecutor(jobs, initializer=torch.set_num_threads, initargs=(share,)) as pool:
            for part in pool.map(lambda chunk: _check_chunk(chunk, file.altered, source, verifier), chunks):
                reports += part
                if progress is not None:
                    progress(len(reports), len(numbered))
    finally:
        torch.set_num_threads(threads)
    return VerifyReport(str(path), header, tuple(reports), tuple(failures), time.perf_counter() - started)


def named_model(header: Header | VerdictHeader, download: bool) -> nn.Module:
    """The registered model that the file names; never a path, nor a Hub repository of the file's choice."""
    if header.model is None:
        raise InvalidInputError("the file names no registered model: give the model to check against (--model)")
    from acert_zoo.zoo.load import load_model
    from acert_zoo.zoo.registry import model_info

    name = header.model if header.model_version is None else f"{header.model}.v{header.model_version}"
    try:
        model_info(name)
    except UnknownNameError:
        raise InvalidInputError(
            f"the file is about {name!r:.80}, no model of the zoo: give the model to check against (--model)"
        ) from None
    try:
        return load_model(name, local_files_only=not download)
    except DownloadError as error:
        if download:
            raise
        raise DownloadError(f"{error}. Nothing is fetched for a file unasked: --download, or download=True") from error


def _shape_of(images: Images) -> tuple[int, ...] | None:
    """(C, H, W) of given pixels: a module that does not say its input shape is read for it."""
    if isinstance(images, Mapping):
        images = next(iter(images.values()), None)
        return tuple(images.shape) if isinstance(images, Tensor) else None
    return tuple(images.shape[1:]) if isinstance(images, Tensor) else None


def _compare_model(header: Header, model: nn.Module, digest: str) -> list[str]:
    found = []
    weights = getattr(model, "weights_sha256", None)
    if header.weights_sha256 is not None and weights is not None and header.weights_sha256 != weights:
        found.append(f"the weights have sha256 {weights}, the file says {header.weights_sha256}")
    if header.network_sha256 != digest:
        found.append(f"the network has digest {digest}, the file says {header.network_sha256}")
    return found


def _check_chunk(
    chunk: Sequence[tuple[int, Line]], altered: Sequence[int], source: Source, verifier: ModelVerifier
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
        if max(line.label, line.prediction) >= verifier.num_classes:
            reasons.append(f"the model has classes 0 to {verifier.num_classes - 1} only")
        elif image is not None and verifier.input_shape and tuple(image.shape) != tuple(verifier.input_shape):
            reasons.append(f"its image has shape {tuple(image.shape)}, the model takes {tuple(verifier.input_shape)}")
        elif image is not None:
            usable.append((number, line, image))
        reports[number] = LineReport(number, line.id, FAILED, tuple(reasons), line.radius)
    if usable:
        lines = [line for _, line, _ in usable]
        images = torch.stack([image for _, _, image in usable])
        for (number, _, _), wrong in zip(usable, verifier.route_reasons(images, lines), strict=True):
            if wrong:
                reports[number] = replace(reports[number], reasons=(*reports[number].reasons, wrong))
        radii = torch.tensor([claimed_radius(line.radius) for line in lines], dtype=torch.float64)
        results = verifier.logits(images), *verifier.prove(images, radii, lines)
        for (number, line, _), logits, proved, margin in zip(usable, *results, strict=True):
            reports[number] = _conclude(reports[number], line, logits, bool(proved), float(margin))
    return list(reports.values())


def claimed_radius(text: str) -> float:
    """The smallest float64 that is neither below the decimal `text` nor below its float64 reading."""
    return max(round_up(parse_eps(text)), float(text))


def _conclude(report: LineReport, line: Line, logits: Tensor, proved: bool, margin: float) -> LineReport:
    reasons = list(report.reasons)
    scale = max(1.0, float(logits.abs().max()))
    if not float(logits[line.prediction]) >= float(logits.max()) - LOGIT_NOISE * scale:
        reasons.append(f"the model answers {int(logits.argmax())}, the line says {line.prediction}")
    if Fraction(line.radius) == 0:
        return replace(report, status=FAILED if reasons else NOTHING_CLAIMED, reasons=tuple(reasons))
    rigorous = line.rounding in PROVED_LEVELS
    noise = SLOPE_NOISE if line.method in CROWN_METHODS else MARGIN_NOISE
    if line.method == BoundMethod.COMPLETE:
        noise = math.inf  # another search ends with other leaves: that the margin is positive is what is proved again
    if rigorous and proved and line.margin is not None and line.margin > margin + noise * scale:
        reasons.append(f"the margin proved is {margin:g}, the line says {line.margin:g}")
    status = FAILED if reasons else PROVED
    if not proved:
        bound = "" if math.isnan(margin) else f": its margin bound is {margin:g}"
        reasons.append(f"label {line.label} is not proved within {line.radius}{bound} ({proved_level(line.rounding)})")
        if not rigorous and status == PROVED:
            status = NOT_PROVED
            reasons.append(f"it was found by {line.method} in {line.rounding}, whose rounding is not proved")
        else:
            status = FAILED
    return replace(report, status=status, reasons=tuple(reasons), margin=None if math.isnan(margin) else margin)
