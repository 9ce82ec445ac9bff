"""The folder that a run in shards writes: its plan, `run.json`, and one complete certificate file for each shard done.

A shard's file appears whole, by renaming, and is never written twice: what is there is done, whatever ended the run
that did it. The plan says what the run is, so that only the same run goes on with it.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acert_zoo._files import check_path, is_plain_file, locked, read_text, write_atomically
from acert_zoo._json import parse_json
from acert_zoo.certificates.file import read_file
from acert_zoo.certificates.lines import Header
from acert_zoo.errors import CertificateFileError, InvalidInputError

if TYPE_CHECKING:
    from acert_zoo.data.pixel_source import PixelSource  # needs torch, which listing and help do without

PLAN = "run.json"
FORMAT = "acert-zoo-run"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Plan:
    """What a run in shards is: two runs with equal plans give the same bits.

    Attributes:
        images: how many there are; shard k holds `shard_size` of them, the last one what remains.
        source: which images they are (`PixelSource.fingerprint`).
        header: of the whole, `n` included.
    """

    images: int
    shard_size: int
    batch_size: int
    threads: int
    source: str
    settings: dict[str, Any]
    header: Header

    @property
    def shards(self) -> int:
        return -(-self.images // self.shard_size)

    def rows(self, shard: int) -> range:
        """The images of shard `shard`, from 0."""
        begin = shard * self.shard_size
        return range(begin, min(begin + self.shard_size, self.images))

    def differences(self, other: Plan) -> list[str]:
        """What must agree for one run to go on with the other, and does not, for people."""
        found = [
            f"{name}: {getattr(self, name)!r:.120} there, {getattr(other, name)!r:.120} now"
            for name in ("images", "shard_size", "batch_size", "threads", "source", "settings")
            if getattr(self, name) != getattr(other, name)
        ]
        headers = self.header, other.header
        return found + [
            f"{name}: {getattr(headers[0], name)!r} there, {getattr(headers[1], name)!r} now"
            for name in self.header.differences(other.header)
        ]


class ShardFolder:
    """The folder of one run.

    Raises:
        InvalidInputError: it cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(check_path(path, "output folder"))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInputError(f"output folder {str(self.path)!r} cannot be made: {error}") from error

    @contextmanager
    def taken(self, plan: Plan) -> Iterator[Plan]:
        """Keeps other runs out, and yields the plan: the one that is there, or `plan`, now written.

        Raises:
            InvalidInputError: another run writes the folder now, or it cannot be written.
            CertificateFileError: the folder is of another run.
        """
        with locked(self.path / PLAN, wait=False):
            there = read_plan(self.path)
            if there is None:
                if self.files():
                    raise CertificateFileError(
                        f"{str(self.path)!r} holds certificate files, but no {PLAN}; name another folder"
                    )
                write_atomically(self.path / PLAN, _format(plan))
                there = plan
            elif different := there.differences(plan):
                raise CertificateFileError(
                    f"{str(self.path)!r} is of another run ({'; '.join(different)}); name another folder"
                )
            for torn in self.path.glob(".shard-*.part"):  # what a killed run was writing
                torn.unlink(missing_ok=True)
            yield there

    def file(self, shard: int) -> Path:
        return self.path / f"shard-{shard:07d}.jsonl"

    def files(self) -> list[Path]:
        """The files that are there, in the order of the shards."""
        return sorted(self.path.glob("shard-*.jsonl"))

    def done(self, plan: Plan, shard: int, source: PixelSource) -> bool:
        """Whether the shard is there.

        Raises:
            CertificateFileError: its file is damaged, or about something else.
        """
        path = self.file(shard)
        if not path.exists():
            return False
        file = read_file(path)
        rows = plan.rows(shard)
        names = [line.id for line in file.lines]
        if file.header.differences(plan.header) or names != source.ids(rows):
            raise CertificateFileError(f"{str(path)!r} is not shard {shard} of this run; move it away to have it done")
        return True

    def write(self, shard: int, content: bytes) -> None:
        """OSError where that is not possible; nothing is there then."""
        write_atomically(self.file(shard), content)


def read_plan(folder: Path) -> Plan | None:
    """The plan of a folder; None where it has none.

    Raises:
        CertificateFileError: it cannot be read as one.
    """
    path = folder / PLAN
    if not is_plain_file(path):
        return None
    try:
        values = parse_json(read_text(path, 1 << 20))
        if values.pop("format", None) != FORMAT or values.pop("schema_version", None) != SCHEMA_VERSION:
            raise ValueError("another format or schema_version")
        header = Header(**values.pop("header"))
        plan = Plan(header=header, **values)
        sizes = (plan.shard_size, plan.batch_size, plan.threads)
        if not all(type(v) is int and v > 0 for v in sizes) or type(plan.images) is not int or plan.images < 0:
            raise ValueError("sizes must be positive integers")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CertificateFileError(f"{str(path)!r} is no plan of a run: {error}") from None
    return plan


def missing_shards(folder: Path) -> int:
    """How many shards a folder with a plan lacks; 0 for folders without one."""
    plan = read_plan(folder)
    return 0 if plan is None else plan.shards - len(ShardFolder(folder).files())


def _format(plan: Plan) -> bytes:
    values = {"format": FORMAT, "schema_version": SCHEMA_VERSION, **dataclasses.asdict(plan)}
    return (json.dumps(values, indent=1, allow_nan=False) + "\n").encode("ascii")
