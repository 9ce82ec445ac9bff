"""The work on one shard, as any process does it: read, certify batch by batch, give the bytes of a certificate file.

A process prepares a job once - assembles the model, reads it into its certifier - and keeps it for the next shards.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

from acert_zoo.bounds.certifier import Certifier
from acert_zoo.certificates.certifiers import make_certifier
from acert_zoo.certificates.certify import batch_lines
from acert_zoo.certificates.file import format_file
from acert_zoo.certificates.lines import Header, Line
from acert_zoo.certificates.packed_model import PackedModel
from acert_zoo.data.checks import check_ids, check_images, pixel_sha256
from acert_zoo.data.pixel_source import PixelSource
from acert_zoo.errors import CertificateFileError
from acert_zoo.network.torch_defaults import STANDARD
from acert_zoo.rounding import weakest


class ShardJob(Protocol):
    """What the shards of a run have in common; engines send it to their processes once. It pickles.

    `prepare` gives what turns a range of images into the content of a file.
    """

    def prepare(self) -> Callable[[range], bytes]: ...


@dataclass(frozen=True)
class CertifyJob:
    """Certifying images of `source`.

    Attributes:
        header: of a shard's file, but for `n` and, where a method may give less, `rounding`.
        rounding: the level that is asked for; the header has what was reached.
        threads: of torch, on which the bits of the radii depend.
    """

    model: PackedModel
    source: PixelSource
    header: Header
    rounding: str
    batch_size: int
    threads: int
    input_shape: tuple[int, ...]
    budget: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    device: str = "cpu"

    def prepare(self) -> Callable[[range], bytes]:
        """Assembles the model.

        Raises:
            CertificateFileError: its network here is not the one that the run is about.
        """
        with STANDARD.applied(), torch_threads(self.threads):
            certifier = make_certifier(
                self.model.unpack(),
                (0, *self.input_shape),
                method=self.header.method,
                rounding=self.rounding,
                mean=self.mean,
                std=self.std,
                budget=self.budget,
                input_shape=self.input_shape,
                device=self.device,
            )
        if certifier.network_sha256 != self.header.network_sha256:
            raise CertificateFileError(
                f"this process has a network of digest {certifier.network_sha256}, the run is about "
                f"{self.header.network_sha256}: does it run another version of acert-zoo or torch?"
            )
        return lambda rows: self._file(certifier, rows)

    def _file(self, certifier: Certifier, rows: range) -> bytes:
        lines: list[Line] = []
        with STANDARD.applied(), torch_threads(self.threads):
            for begin in range(rows.start, rows.stop, self.batch_size):
                lines += self._batch(certifier, range(begin, min(begin + self.batch_size, rows.stop)))
        header = dataclasses.replace(self.header, n=len(lines), rounding=weakest(line.rounding for line in lines))
        return format_file(header, lines)

    def _batch(self, certifier: Certifier, rows: range) -> list[Line]:
        names = check_ids(self.source.ids(rows), len(rows))
        images, labels = self.source.read(rows)
        images, targets = check_images(images, labels, certifier.input_shape, certifier.num_classes)
        started = time.perf_counter()
        found = certifier(images, targets)
        seconds = (time.perf_counter() - started) / len(rows)
        return batch_lines(found, names, [pixel_sha256(image) for image in images], targets is not None, seconds)


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """So many threads of torch within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
