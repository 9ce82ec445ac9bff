"""Engines by name: "local", this process, and "ray"."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from acert_zoo.certificates.engine import Engine, Outcome
from acert_zoo.certificates.shard_job import ShardJob
from acert_zoo.errors import InvalidInputError, UnknownNameError

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


@contextmanager
def opened(
    engine: str | Engine, shards: int, *, address: str | None = None, workers: int | None = None, threads: int = 1
) -> Iterator[Engine]:
    """The engine, or that of the name, for so many shards; a session that it began is ended afterwards.

    One shard is one worker's work, which this process does before a session of Ray on this machine would have begun.

    Raises:
        InvalidInputError: `engine` is neither a name nor an engine.
        UnknownNameError, MissingDependencyError: as of `open_engine`, which has the other arguments.
    """
    if not isinstance(engine, str):
        if not callable(getattr(engine, "run", None)):
            raise InvalidInputError(f"engine {engine!r:.80}: expected 'local', 'ray', or an object with a method run")
        yield engine
        return
    if engine == "ray" and shards <= 1 and address is None:
        from acert_zoo.certificates.ray_engine import check_arguments, has_session

        check_arguments(workers)
        engine = "ray" if has_session() else "local"
    own = open_engine(engine, address=address, workers=workers, threads=threads)
    try:
        yield own
    finally:
        if hasattr(own, "close"):
            own.close()
