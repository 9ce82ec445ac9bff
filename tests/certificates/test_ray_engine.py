"""The driver's side of the Ray engine, before a stand-in for Ray: what it hands over, keeps, and makes of errors."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from acert_zoo import certify
from acert_zoo.certificates.certify_dataset import certify_dataset
from acert_zoo.certificates.open_engine import LocalEngine, opened
from acert_zoo.certificates.ray_engine import AHEAD, PRELOAD, PRELOADED, RayEngine
from acert_zoo.certificates.verify_files import verify_files
from acert_zoo.data.datasets import to_pixels
from acert_zoo.errors import InvalidInputError, MissingDependencyError, UnknownNameError
from acert_zoo.zoo.model import AcertModel


class Reference:
    """An object of the store; a task's value is made when it is asked for."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def binary(self) -> bytes:
        return str(id(self)).encode()


class TaskError(Exception):
    def __init__(self, cause: Exception) -> None:
        self.cause = cause


class FakeRay(ModuleType):
    """As much of Ray as the engine uses, with two CPUs; tasks end last first."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.exceptions = SimpleNamespace(RayTaskError=TaskError, RayError=ConnectionError)
        self.begun = self.put_count = self.most_waiting = 0
        self.cancelled: list[Any] = []
        self.options: dict[str, Any] = {}
        self.resources = {"CPU": 2.0}

    def is_initialized(self) -> bool:
        return self.begun > 0

    def init(self, **options: Any) -> None:
        self.begun += 1

    def shutdown(self) -> None:
        self.begun = 0

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def put(self, value: Any) -> Reference:
        self.put_count += 1
        return Reference(value)

    def remote(self, **options: Any) -> Callable[..., Any]:
        self.options = options
        return lambda function: SimpleNamespace(remote=lambda *a: Reference(lambda: function(*a)))

    def wait(self, waiting: list[Reference], num_returns: int) -> tuple[list[Reference], list[Reference]]:
        self.most_waiting = max(self.most_waiting, len(waiting))
        return waiting[-1:], waiting[:-1]

    def get(self, reference: Reference) -> Any:
        if not callable(reference.value):
            return reference.value
        try:
            return reference.value()
        except InvalidInputError as error:
            raise TaskError(error) from error

    def cancel(self, reference: Reference, force: bool) -> None:
        self.cancelled.append(reference)


class Job:
    prepared = 0
    device = "cpu"

    def prepare(self) -> Callable[[range], bytes]:
        self.prepared += 1
        return self.work

    @staticmethod
    def work(rows: range) -> bytes:
        if rows.start == 30:
            raise InvalidInputError("an image cannot be read")
        if rows.start == 50:
            raise ConnectionError("the worker died")
        return f"{rows.start}-{rows.stop}".encode()


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    return fake


def test_every_shard_once_few_at_a_time_and_the_job_put_and_prepared_once(ray: FakeRay) -> None:
    engine, job, asked = RayEngine(), Job(), []

    def shards() -> Iterator[tuple[int, range]]:
        for k in range(9):
            asked.append(k)
            yield k, range(10 * k, 10 * k + 10)

    outcomes = {}
    for outcome in engine.run(job, shards()):
        outcomes[outcome.shard] = outcome
        assert len(asked) <= len(outcomes) + 2 * AHEAD
    assert sorted(outcomes) == list(range(9))
    assert outcomes[2].content == b"20-30"
    assert str(outcomes[3].error) == "an image cannot be read"
    assert isinstance(outcomes[3].error, InvalidInputError)  # not Ray's wrapping of it
    assert isinstance(outcomes[5].error, ConnectionError)
    assert (ray.most_waiting, ray.put_count, job.prepared) == (2 * AHEAD, 1, 1)
    assert ray.options == {"num_cpus": 1, "max_retries": 3}


def test_what_is_under_way_is_given_up_when_the_run_is(ray: FakeRay) -> None:
    outcomes = RayEngine(workers=1).run(Job(), ((k, range(k, k + 1)) for k in range(9)))
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    assert not ray.cancelled  # one worker of two CPUs: nothing was handed over ahead
    outcomes = RayEngine().run(Job(), ((k, range(k, k + 1)) for k in range(9)))
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    assert len(ray.cancelled) == 2 * AHEAD - 1


def test_only_a_session_that_was_begun_here_is_ended_here(ray: FakeRay) -> None:
    first = RayEngine()
    RayEngine().close()
    assert ray.begun == 1
    first.close()
    assert ray.begun == 0


def test_a_shard_that_searches_on_a_gpu_asks_for_one(ray: FakeRay) -> None:
    engine, job = RayEngine(), Job()
    job.device = "cuda"
    with pytest.raises(InvalidInputError, match="Ray knows of no GPU for device 'cuda'"):
        next(engine.run(job, iter([(0, range(1))])))
    ray.resources["GPU"] = 1.0
    assert next(engine.run(job, iter([(0, range(1))]))).content == b"0-1"
    assert ray.options == {"num_cpus": 1, "num_gpus": 1, "max_retries": 3}


def test_workers_that_begin_with_a_session_import_what_they_need(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []
    monkeypatch.setattr(ray, "init", lambda **options: seen.append(os.environ.get(PRELOAD)))
    monkeypatch.delenv(PRELOAD, raising=False)
    RayEngine()
    monkeypatch.setenv(PRELOAD, "mine")
    RayEngine()
    assert seen == [PRELOADED, f"mine,{PRELOADED}"]
    assert os.environ[PRELOAD] == "mine"
    importlib.import_module(PRELOADED)


def test_one_shard_begins_no_session_of_this_machine(ray: FakeRay) -> None:
    with opened("ray", 1) as engine:
        assert isinstance(engine, LocalEngine)
    assert ray.begun == 0
    for shards, address in ((2, None), (1, "auto")):
        with opened("ray", shards, address=address) as engine:
            assert isinstance(engine, RayEngine)
            assert ray.begun == 1
        assert ray.begun == 0  # ended
    ray.begun = 1  # the caller's own session
    with opened("ray", 1) as engine:
        assert isinstance(engine, RayEngine)
    assert ray.begun == 1
    with (
        pytest.raises(InvalidInputError, match="workers must be a positive integer, got 0"),
        opened("ray", 1, workers=0),
    ):
        pass


@pytest.mark.parametrize("cpus", [1, 2, 3])
def test_bits_do_not_depend_on_the_number_of_workers_and_files_are_verified_by_them(
    ray: FakeRay, model: AcertModel, tmp_path: Path, cpus: int
) -> None:
    ray.resources["CPU"] = cpus
    pixels = np.random.default_rng(2).integers(0, 256, (18, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", pixels)
    sizes = {"batch_size": 4, "shard_size": 4}
    result = certify_dataset(model, tmp_path / "x.npy", out=tmp_path / "run", engine="ray", **sizes)
    assert (ray.most_waiting, ray.begun) == (min(5, cpus * AHEAD), 0)
    images = to_pixels(pixels)
    assert result.load().radius.tolist() == certify(model, images, batch_size=4).radius.tolist()
    by_id = {str(i): image for i, image in enumerate(images)}
    reports = list(verify_files([tmp_path / "run"], model=model, images=by_id, engine="ray"))
    assert ray.put_count == 2
    assert sorted(report.path for report in reports) == [str(path) for path in result.files]
    assert all(report.ok for report in reports)
    assert ray.begun == 0
    with pytest.raises(UnknownNameError):
        certify_dataset(model, tmp_path / "x.npy", out=tmp_path / "no", engine="ray", method="x", **sizes)
    assert ray.begun == 0  # it had begun
    by_id["9"] = 1 - by_id["9"]
    wrong = [r.path for r in verify_files([tmp_path / "run"], model=model, images=by_id, engine="ray") if not r.ok]
    assert wrong == [str(result.files[2])]


def test_refusals(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match="workers must be a positive integer, got 0"):
        RayEngine(workers=0)
    with pytest.raises(InvalidInputError, match="no worker with 3 CPUs"):
        RayEngine(threads=3)
    assert ray.begun == 0

    def unreachable(**options: Any) -> None:
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(ray, "init", unreachable)
    with pytest.raises(InvalidInputError, match="there is no Ray session at 'x:1': nobody answers"):
        RayEngine("x:1")
    monkeypatch.setitem(sys.modules, "ray", None)
    for call in (RayEngine, lambda: opened("ray", 1).__enter__()):
        with pytest.raises(MissingDependencyError, match=r"pip install 'acert-zoo\[ray\]"):
            call()
