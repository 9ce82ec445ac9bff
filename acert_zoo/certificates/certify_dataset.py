"""`certify_dataset`: a data set of any size, in shards, on an engine (docs/scale.md).

What is done is kept, and the bits do not depend on who did it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from acert_zoo.certificates.certificate import Eps
from acert_zoo.certificates.certifiers import make_certifier
from acert_zoo.certificates.certify import images_at_a_time, run_header
from acert_zoo.certificates.engine import Engine
from acert_zoo.certificates.lines import Header
from acert_zoo.certificates.open_engine import opened
from acert_zoo.certificates.packed_model import PackedModel
from acert_zoo.certificates.results import Certificates
from acert_zoo.certificates.shard_folder import Plan, ShardFolder
from acert_zoo.certificates.shard_job import CertifyJob, ShardJob
from acert_zoo.data.open_source import open_source
from acert_zoo.data.pixel_source import PixelSource
from acert_zoo.errors import InvalidInputError
from acert_zoo.network.torch_defaults import STANDARD, check_same_under
from acert_zoo.rounding import BoundMethod, RoundingLevel

SHARD_SIZE = 512  # images, about: seconds to minutes of work, and 200 KB of file
SLOW_SHARD_SIZE = 64  # for methods that take seconds an image


@dataclass(frozen=True)
class DatasetCertificates:
    """The certificates of a data set, in a folder of files.

    Attributes:
        folder: the folder that `certify_dataset` wrote.
        header: of all of them together; `n` images.
        files: one complete certificate file a shard, in the order of the images.
    """

    folder: Path
    header: Header
    files: tuple[Path, ...]

    def __len__(self) -> int:
        return self.header.n

    def parts(self) -> Iterator[Certificates]:
        """The certificates file by file: at most one shard in memory."""
        return (Certificates.load(path) for path in self.files)

    def load(self) -> Certificates:
        """All of them at once, in memory."""
        lines = [line for part in self.parts() for line in part.lines()]
        return Certificates.from_lines(self.header, lines)

    def summary(self, eps: Sequence[Eps] = ()) -> dict[str, Any]:
        """Images, accuracy (None without labels), ACR in pixel units, and the share certified at each `eps`, read file
        by file."""
        correct, radii, certified, n = 0, [], [0] * len(eps), 0
        for part in self.parts():
            n += len(part)
            correct += int(part.correct.sum())
            radii.append(math.fsum(part.radius.tolist()))
            certified = [c + int(part.certified(e).sum()) for c, e in zip(certified, eps, strict=True)]
        labelled = self.header.certifies == "label" and n > 0
        return {
            "images": n,
            "accuracy": correct / n if labelled else None,
            "acr": math.fsum(radii) / n if n else None,
            "certified": {str(e): c / n if n else None for e, c in zip(eps, certified, strict=True)},
        }


def certify_dataset(
    model: nn.Module | str,
    dataset: Any,
    *,
    out: str | os.PathLike[str],
    engine: str | Engine = "local",
    split: str | None = None,
    data_root: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    resize: bool = False,
    method: str = BoundMethod.IBP,
    rounding: str = RoundingLevel.REAL_SOUND,
    batch_size: int | None = None,
    shard_size: int | None = None,
    threads: int = 1,
    workers: int | None = None,
    ray_address: str | None = None,
    budget: float | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_shape: Sequence[int] | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> DatasetCertificates:
    """Certifies a data set shard by shard into a folder of certificate files.

    The same call again goes on with the shards that are missing. The certificates are, bit for bit, those of `certify`
    over all images in one process, with the same batch size and as many `threads` on the same kind of machine, whatever
    the engine, the number of workers and the order in which shards finish (methods with a budget of seconds apart).

    Args:
        model, method, rounding, batch_size, budget, mean, std, input_shape, device: as of `certify`.
        dataset, split, data_root, labels, resize: what to certify: a registered data set and its split; a folder of
            images, labelled where folders are named like the classes of the model's data set; a `.npy` file, with
            `labels` in another; WebDataset tar files or a folder of them. See `acert_zoo.data.open_source`.
        out: the folder; made where it does not exist.
        engine: "local" (this process), or "ray": processes of Ray on this machine, or of the cluster at `ray_address`,
            whose machines must have acert-zoo and see the data set under the same path.
        shard_size: images of a shard, a multiple of the batch size; by default about 512, for slow methods 64.
        threads: of torch, in each process. Radii depend on their number in the last bits, so it is no default of the
            machine's.
        workers: how many shards Ray runs at a time, by default as many as the CPUs allow.
        progress: called with (images done, images in all) at the beginning and after every shard.

    Raises:
        InvalidInputError: an argument or an image cannot be used; `out` is being written by another run, or a shard's
            file cannot be written (what is done stays, and the same call goes on).
        CertificateFileError: `out` is of another run, or damaged.
        MissingDependencyError: Ray is not installed.
        UnknownNameError, UnsupportedLayerError, UnsoundSettingError, DatasetNotFoundError: as of `certify`, and of
            `acert_zoo.data.open_source`.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InvalidInputError(f"threads must be a positive integer, got {threads!r}")
    with ExitStack() as stack:
        caller = stack.enter_context(STANDARD.applied())
        if isinstance(model, str):
            from acert_zoo.zoo.load import load_model

            model = load_model(model)
        shape = input_shape or getattr(model, "input_shape", None)
        source = open_source(
            dataset,
            shape,
            split=split,
            data_root=data_root,
            labels=labels,
            classes_of=getattr(getattr(model, "info", None), "dataset", None),
            resize=resize,
        )
        size = images_at_a_time(batch_size, method)
        shard = _shard_size(shard_size, size, method)
        count = -(-len(source) // shard)
        # Workers begin, and import torch, while the model is prepared here.
        own = stack.enter_context(opened(engine, count, address=ray_address, workers=workers, threads=threads))
        first, _ = source.read(range(min(2, len(source)))) if len(source) else (torch.zeros(0, *(shape or ())), None)
        shape = tuple(shape or first.shape[1:])
        settings: dict[str, Any] = {"mean": mean, "std": std, "budget": budget, "device": device}
        certifier = make_certifier(model, (0, *shape), method=method, rounding=rounding, input_shape=shape, **settings)
        check_same_under(caller, model, first)
        header = run_header(model, certifier, method, source.labelled, source.dataset, source.split, len(source))
        plan = Plan(
            images=len(source),
            shard_size=shard,
            batch_size=size,
            threads=threads,
            source=source.fingerprint,
            settings={k: list(v) if isinstance(v, (tuple, list)) else v for k, v in settings.items()},
            header=header,
        )
        folder = ShardFolder(out)
        plan = stack.enter_context(folder.taken(plan))
        job = CertifyJob(
            model=PackedModel.of(model),
            source=source,
            header=plan.header,
            batch_size=size,
            threads=threads,
            input_shape=shape,
            rounding=rounding,
            budget=budget,
            mean=None if mean is None else tuple(mean),
            std=None if std is None else tuple(std),
            device=device,
        )
        run_shards(own, job, plan, folder, source, progress)
    return DatasetCertificates(folder.path, plan.header, tuple(folder.file(k) for k in range(plan.shards)))


def run_shards(
    engine: Engine,
    job: ShardJob,
    plan: Plan,
    folder: ShardFolder,
    source: PixelSource,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Has every shard done that is not there yet. After a first failure no further shard is begun; what is under way is
    waited for and kept, and then the failure raised.

    Raises:
        InvalidInputError: a shard's file could not be written.
        Exception: what a shard ended in.
    """
    failure: list[Exception] = []
    todo = [k for k in range(plan.shards) if not folder.done(plan, k, source)]
    done = plan.images - sum(len(plan.rows(k)) for k in todo)
    if progress is not None:
        progress(done, plan.images)
    pending = ((k, plan.rows(k)) for k in todo)
    outcomes = engine.run(job, (shard for shard in pending if not failure)) if todo else iter(())
    for outcome in outcomes:
        error = outcome.error
        if error is None:
            try:
                folder.write(outcome.shard, outcome.content)
            except OSError as refused:
                path = str(folder.file(outcome.shard))
                error = InvalidInputError(f"output file {path!r} cannot be written: {refused}")
        if error is not None:
            failure.append(error)
            continue
        done += len(plan.rows(outcome.shard))
        if progress is not None:
            progress(done, plan.images)
    if failure:
        first = failure[0]
        first.add_note(
            f"{done:,} of {plan.images:,} images are certified in {str(folder.path)!r}; the same call goes on."
        )
        raise first


def _shard_size(shard_size: int | None, batch_size: int, method: str) -> int:
    if shard_size is None:
        wanted = SHARD_SIZE if method == BoundMethod.IBP else SLOW_SHARD_SIZE
        return max(1, wanted // batch_size) * batch_size
    if isinstance(shard_size, bool) or not isinstance(shard_size, int) or shard_size < 1 or shard_size % batch_size:
        raise InvalidInputError(f"shard_size must be a multiple of the batch size, {batch_size}, got {shard_size!r}")
    return shard_size
