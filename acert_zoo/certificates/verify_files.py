"""Proves several certificate files again, one after the other or each by another process of an engine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from acert_zoo.certificates.lines import Header
from acert_zoo.certificates.merge import certificate_files
from acert_zoo.certificates.open_engine import opened
from acert_zoo.certificates.packed_model import PackedModel
from acert_zoo.certificates.recorded_images import Images
from acert_zoo.certificates.shard_job import torch_threads
from acert_zoo.certificates.verify import verify_file
from acert_zoo.certificates.verify_report import LineReport, VerifyReport


@dataclass(frozen=True)
class VerifyJob:
    """Proving certificate files; a "shard" is a file. Options as of `verify_file`."""

    files: tuple[str, ...]
    model: PackedModel | None
    options: dict[str, Any]
    threads: int

    def prepare(self) -> Callable[[range], bytes]:
        """Assembles the model, where one was given."""
        model = None if self.model is None else self.model.unpack()

        def verify(rows: range) -> bytes:
            (number,) = rows
            with torch_threads(self.threads):
                report = verify_file(self.files[number], model=model, **self.options)
            return json.dumps(report.to_dict()).encode()

        return verify


def verify_files(
    paths: Sequence[str | os.PathLike[str]],
    *,
    model: nn.Module | None = None,
    images: Images = None,
    data_root: str | os.PathLike[str] | None = None,
    resize: bool = False,
    download: bool = False,
    engine: str = "local",
    workers: int | None = None,
    ray_address: str | None = None,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[VerifyReport]:
    """Proves certificate files again; their reports, in the order in which files are done.

    Args:
        paths: files, or folders of them (of a run in shards: with all of its shards).
        model, images, data_root, resize, download: as of `verify_file`, for every file.
        engine, workers, ray_address, threads: as of `certify_dataset`; "ray" proves files in parallel.
        progress: called with (files done, files in all).

    Raises:
        CertificateFileError: a file is damaged or incomplete, or shards are missing. What `verify_file` raises.
        MissingDependencyError: Ray is not installed.
    """
    files = tuple(str(path) for path in certificate_files(paths))
    options = {"images": images, "data_root": data_root, "resize": resize, "download": download}
    job = VerifyJob(files, None if model is None else PackedModel.of(model), options, threads)
    with opened(engine, len(files), address=ray_address, workers=workers, threads=threads) as runner:
        outcomes = runner.run(job, ((k, range(k, k + 1)) for k in range(len(files))))
        for done, outcome in enumerate(outcomes, start=1):
            if outcome.error is not None:
                raise outcome.error
            yield _report(json.loads(outcome.content))
            if progress is not None:
                progress(done, len(files))


def _report(values: dict[str, Any]) -> VerifyReport:
    """The inverse of `VerifyReport.to_dict`."""
    lines = tuple(LineReport(**{**line, "reasons": tuple(line["reasons"])}) for line in values["lines"])
    return VerifyReport(
        values["path"], Header(**values["header"]), lines, tuple(values["failures"]), float(values["seconds"])
    )
