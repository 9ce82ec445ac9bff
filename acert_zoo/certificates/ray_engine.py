"""Shards as tasks of Ray (https://docs.ray.io): on the cores of one machine, or unchanged on a cluster.

The job, weights included, is put into Ray's object store once; a worker process takes it from there once. No more tasks
are handed to Ray than keep the workers busy, so the driver holds the results of a few shards however many there are.
Ray itself runs a shard again whose worker has died; an error of the shard's own is no reason to.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from acert_zoo._version import SOURCE
from acert_zoo.certificates.engine import Outcome
from acert_zoo.certificates.shard_job import ShardJob
from acert_zoo.errors import InvalidInputError, MissingDependencyError

RETRIES = 3  # of a shard whose worker died
AHEAD = 2  # tasks per worker that Ray holds: one running, one waiting
STARTS = 2  # of a session: on a busy machine Ray's processes may miss their own deadline of some 15 s
# The modules that a worker begun here imports before its first task comes: torch alone takes it a second or two.
PRELOAD = "RAY_preload_python_modules"
PRELOADED = "acert_zoo.certificates.shard_job"
STORE_BYTES = 256 * 2**20  # of a session on this machine; it holds the job and a few results of 100 KB
_PREPARED: OrderedDict[bytes, Callable[[range], bytes]] = OrderedDict()  # of this worker process, by the job's object


class RayEngine:
    """Ray's workers: those of a session that is already open in this process, of a cluster, or of one begun here.

    Args:
        address: of a cluster ("auto", "10.0.0.1:6379", "ray://..."); None begins a session on this machine.
        workers: how many shards run at a time; by default as many as the CPUs allow.
        threads: CPUs of each.

    Raises:
        MissingDependencyError: Ray is not installed.
        InvalidInputError: there is no cluster at `address`, or it has too few CPUs for one worker.
    """

    def __init__(self, address: str | None = None, workers: int | None = None, threads: int = 1) -> None:
        check_arguments(workers)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told what runs here
        import ray

        self.ray: Any = ray
        self.threads = threads
        self.began = False
        if not ray.is_initialized():
            self._begin(address, workers)
        room = int(self.ray.cluster_resources().get("CPU", 0)) // threads
        if not room:
            self.close()
            raise InvalidInputError(f"Ray has no worker with {threads} CPUs; give fewer threads")
        self.workers = room if workers is None else min(workers, room)

    def run(self, job: ShardJob, shards: Iterable[tuple[int, range]]) -> Iterator[Outcome]:
        ray = self.ray
        resources: dict[str, Any] = {"num_cpus": self.threads}
        device = getattr(job, "device", "cpu")
        if device != "cpu":  # Ray hides the GPUs from tasks that do not ask for one
            if not ray.cluster_resources().get("GPU"):
                raise InvalidInputError(f"Ray knows of no GPU for device {device!r}; leave the device out")
            resources["num_gpus"] = 1
        task = ray.remote(**resources, max_retries=RETRIES)(_run_shard)
        reference = ray.put(job)
        waiting: dict[Any, int] = {}
        remaining = iter(shards)
        # Where fewer workers are wanted than there are, nothing is handed over ahead of them.
        ahead = self.workers * (AHEAD if self.workers * self.threads >= self._cpus() else 1)
        try:
            while True:
                while len(waiting) < ahead and (following := next(remaining, None)) is not None:
                    number, rows = following
                    # In a list the reference arrives as one; the worker takes the job from the store where it has to.
                    waiting[task.remote([reference], rows.start, rows.stop)] = number
                if not waiting:
                    return
                done, _ = ray.wait(list(waiting), num_returns=1)
                number = waiting.pop(done[0])
                try:
                    outcome = Outcome(number, ray.get(done[0]))
                except ray.exceptions.RayTaskError as error:
                    cause = error.cause
                    outcome = Outcome(number, error=cause if isinstance(cause, Exception) else error)
                except ray.exceptions.RayError as error:
                    outcome = Outcome(number, error=error)
                del done
                yield outcome
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)

    def _begin(self, address: str | None, workers: int | None) -> None:
        options: dict[str, Any] = {"address": address}
        if address is None:
            cpus = None if workers is None else workers * self.threads
            options = {
                "address": "local",
                "num_cpus": cpus,
                "object_store_memory": STORE_BYTES,
                "include_dashboard": False,
            }
        for attempt in range(1, STARTS + 1):
            try:
                with _preloading():
                    self.ray.init(log_to_driver=False, logging_level="ERROR", configure_logging=False, **options)
                break
            except Exception as error:  # Ray's own types, and a bare Exception where its processes are late
                self.ray.shutdown()
                if address is not None or attempt == STARTS:
                    where = "on this machine" if address is None else f"at {address!r}"
                    raise InvalidInputError(f"there is no Ray session {where}: {error}") from error
        self.began = True

    def close(self) -> None:
        """Ends the session, if it was begun here."""
        if self.began:
            self.ray.shutdown()

    def _cpus(self) -> int:
        return int(self.ray.cluster_resources().get("CPU", 0))


def check_arguments(workers: int | None) -> None:
    """Raises what `RayEngine` would, without importing Ray."""
    try:
        found = importlib.util.find_spec("ray")
    except ValueError:  # a module without a spec is one all the same
        found = sys.modules["ray"].__spec__
    if found is None and sys.modules.get("ray") is None:
        raise MissingDependencyError(f"the engine needs Ray; install it with: pip install 'acert-zoo[ray] @ {SOURCE}'")
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise InvalidInputError(f"workers must be a positive integer, got {workers!r}")


def has_session() -> bool:
    """Whether a session of Ray is open in this process."""
    ray: Any = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


@contextmanager
def _preloading() -> Iterator[None]:
    """Workers of a session that begins within the block import `PRELOADED` while the driver prepares the job."""
    given = os.environ.get(PRELOAD)
    os.environ[PRELOAD] = PRELOADED if given is None else f"{given},{PRELOADED}"
    try:
        yield
    finally:
        if given is None:
            del os.environ[PRELOAD]
        else:
            os.environ[PRELOAD] = given


def _run_shard(job: list[Any], start: int, stop: int) -> bytes:
    """In a worker process: the content of one shard's file."""
    import ray

    key = job[0].binary()
    if key not in _PREPARED:
        _PREPARED.clear()  # one job's model at a time
        _PREPARED[key] = ray.get(job[0]).prepare()
    return _PREPARED[key](range(start, stop))
