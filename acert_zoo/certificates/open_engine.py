"""Engines by name: "local", this process, and "ray"."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from acert_zoo.certificates.engine import Engine, Outcome
from acert_zoo.certificates.shard_job import ShardJob
from acert_zoo.errors import UnknownNameError

ENGINES = ("local", "ray")


class LocalEngine:
    """This process, one shard after the other."""

    def run(self, job: ShardJob, shards: Iterable[tuple[int, range]]) -> Iterator[Outcome]:
        work: Callable[[range], bytes] | None = None
        for number, rows in shards:
            try:
                work = work or job.prepare()
                yield Outcome(number, work(rows))
            except Exception as error:
                yield Outcome(number, error=error)


def open_engine(name: str, *, address: str | None = None, workers: int | None = None, threads: int = 1) -> Engine:
    """The engine "local" or "ray".

    Args:
        address, workers, threads: see `RayEngine`.

    Raises:
        UnknownNameError: there is no engine of that name.
        MissingDependencyError: Ray is not installed.
    """
    if name == "local":
        return LocalEngine()
    if name == "ray":
        from acert_zoo.certificates.ray_engine import RayEngine

        return RayEngine(address, workers, threads)
    raise UnknownNameError.near("engine", name, ENGINES)
