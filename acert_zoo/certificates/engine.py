"""What runs the shards of a job, seen from the run: shards in, outcomes out, in any order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from acert_zoo.certificates.shard_job import ShardJob


@dataclass(frozen=True)
class Outcome:
    """What became of a shard: the content of its file, or the error that it ended in."""

    shard: int
    content: bytes = b""
    error: Exception | None = None


class Engine(Protocol):
    """Runs shards of a job, each once, in any order."""

    def run(self, job: ShardJob, shards: Iterable[tuple[int, range]]) -> Iterator[Outcome]:
        """The outcomes as they come. `shards` is asked for the next one only when there is room for it; closing the
        iterator gives up what is under way."""
        ...
