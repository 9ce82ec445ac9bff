"""Certifying in shards: the bits of one run, nothing lost and nothing twice, whatever ends a run half way.

Also tested here: certificates/engine.py, certificates/open_engine.py, certificates/packed_model.py,
certificates/shard_folder.py, certificates/shard_job.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from acert_zoo import certify
from acert_zoo.certificates.certify_dataset import certify_dataset
from acert_zoo.certificates.engine import Outcome
from acert_zoo.certificates.merge import merge_files
from acert_zoo.certificates.open_engine import LocalEngine
from acert_zoo.certificates.results import Certificates
from acert_zoo.certificates.shard_folder import ShardFolder
from acert_zoo.certificates.shard_job import ShardJob
from acert_zoo.data.datasets import to_pixels
from acert_zoo.errors import CertificateFileError, InvalidInputError, UnknownNameError
from acert_zoo.zoo.model import AcertModel

N = 22
SIZES = {"batch_size": 4, "shard_size": 4}


class Backwards:
    """An engine whose shards finish in the opposite order, some of them with an error."""

    def __init__(self, *failing: int) -> None:
        self.failing, self.done = failing, []

    def run(self, job: ShardJob, shards: Iterable[tuple[int, range]]) -> Iterator[Outcome]:
        for number, rows in reversed(list(shards)):
            if number in self.failing:
                yield Outcome(number, error=InvalidInputError(f"shard {number} fails"))
            else:
                self.done.append(number)
                yield next(LocalEngine().run(job, [(number, rows)]))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", np.random.default_rng(2).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8))
    np.save(tmp_path / "y.npy", np.arange(N) % 4)
    return tmp_path / "x.npy"


def whole(model: AcertModel, data: Path) -> Certificates:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return certify(model, to_pixels(np.load(data)), torch.arange(N) % 4, batch_size=4)
    finally:
        torch.set_num_threads(threads)


def same_bits(one: Certificates, other: Certificates) -> None:
    for field in ("radius", "margin", "prediction", "label"):
        assert torch.equal(getattr(one, field).nan_to_num(nan=-1.0), getattr(other, field).nan_to_num(nan=-1.0))
    for field in ("ids", "pixel_sha256", "method", "roundings"):
        assert getattr(one, field) == getattr(other, field)


@pytest.mark.parametrize("engine", ["local", Backwards()])
def test_the_bits_of_one_run_in_whatever_order(model: AcertModel, data: Path, tmp_path: Path, engine: object) -> None:
    seen: list[tuple[int, int]] = []
    labels = tmp_path / "y.npy"
    result = certify_dataset(
        model, data, labels=labels, out=tmp_path / "run", engine=engine, progress=lambda *p: seen.append(p), **SIZES
    )
    expected = whole(model, data)
    same_bits(result.load(), expected)
    assert len(result) == N
    assert [path.name for path in result.files] == [f"shard-{k:07d}.jsonl" for k in range(6)]
    assert (seen[0], seen[-1], len(seen)) == ((0, N), (N, N), 7)
    summary = result.summary(["1/255"])
    assert summary["accuracy"] == expected.accuracy
    assert summary["acr"] == pytest.approx(expected.acr, rel=1e-12)
    assert summary["certified"] == {"1/255": expected.certified_accuracy("1/255")}
    merge_files([tmp_path / "run"], tmp_path / "merged.jsonl")
    same_bits(Certificates.load(tmp_path / "merged.jsonl"), expected)


def test_a_failing_shard_keeps_the_others_and_the_same_call_goes_on(
    model: AcertModel, data: Path, tmp_path: Path
) -> None:
    first = Backwards(3)
    with pytest.raises(InvalidInputError, match="shard 3 fails") as caught:
        certify_dataset(model, data, out=tmp_path / "run", engine=first, **SIZES)
    assert "18 of 22 images are certified" in caught.value.__notes__[0]
    before = {path.name: path.stat().st_mtime_ns for path in ShardFolder(tmp_path / "run").files()}
    with pytest.raises(CertificateFileError, match="lacks 1 shards"):
        merge_files([tmp_path / "run"], tmp_path / "merged.jsonl")
    again = Backwards()
    result = certify_dataset(model, data, out=tmp_path / "run", engine=again, **SIZES)
    assert (sorted(first.done), again.done) == ([0, 1, 2, 4, 5], [3])
    assert all((tmp_path / "run" / name).stat().st_mtime_ns == time for name, time in before.items())
    assert result.load().ids == [str(i) for i in range(N)]
    assert result.load().certifies == "prediction"


def test_after_a_failure_no_shard_is_begun(model: AcertModel, data: Path, tmp_path: Path) -> None:
    class Failing:
        begun = 0

        def run(self, job: ShardJob, shards: Iterable[tuple[int, range]]) -> Iterator[Outcome]:
            for number, _ in shards:
                self.begun += 1
                yield Outcome(number, error=InvalidInputError("no"))

    engine = Failing()
    with pytest.raises(InvalidInputError):
        certify_dataset(model, data, out=tmp_path / "run", engine=engine, **SIZES)
    assert engine.begun == 1


def test_a_full_disk_on_one_shard(
    model: AcertModel, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = ShardFolder.write

    def full(self: ShardFolder, shard: int, content: bytes) -> None:
        if shard == 2:
            raise OSError(28, "No space left on device")
        write(self, shard, content)

    with monkeypatch.context() as patch:
        patch.setattr(ShardFolder, "write", full)
        with pytest.raises(InvalidInputError, match=r"shard-0000002\.jsonl' cannot be written.*No space left"):
            certify_dataset(model, data, out=tmp_path / "run", **SIZES)
    assert [path.name for path in ShardFolder(tmp_path / "run").files()] == [
        "shard-0000000.jsonl",
        "shard-0000001.jsonl",
    ]
    result = certify_dataset(model, data, out=tmp_path / "run", **SIZES)
    assert result.load().ids == [str(i) for i in range(N)]


def test_another_run_or_a_damaged_folder_is_refused(model: AcertModel, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    certify_dataset(model, data, out=out, **SIZES)
    for change, message in (
        ({"batch_size": 2}, "batch_size: 4 there, 2 now"),
        ({"shard_size": 8}, "shard_size: 4 there, 8 now"),
        ({"threads": 2}, "threads: 1 there, 2 now"),
        ({"labels": tmp_path / "y.npy"}, "certifies: 'prediction' there, 'label' now"),
        ({"rounding": "float32"}, "rounding: 'real-sound' there, 'float32' now"),
    ):
        with pytest.raises(CertificateFileError, match=message):
            certify_dataset(model, data, out=out, **(SIZES | change))
    shard = out / "shard-0000001.jsonl"
    shard.write_bytes((out / "shard-0000002.jsonl").read_bytes())
    with pytest.raises(CertificateFileError, match="is not shard 1 of this run"):
        certify_dataset(model, data, out=out, **SIZES)
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(CertificateFileError, match="truncated"):
        certify_dataset(model, data, out=out, **SIZES)
    plan = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(plan | {"shard_size": 0}))
    with pytest.raises(CertificateFileError, match="no plan of a run: sizes must be positive"):
        certify_dataset(model, data, out=out, **SIZES)
    (out / "run.json").unlink()
    with pytest.raises(CertificateFileError, match=r"holds certificate files, but no run\.json"):
        certify_dataset(model, data, out=out, **SIZES)


def test_bad_arguments(model: AcertModel, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="multiple of the batch size, 4, got 6"):
        certify_dataset(model, data, out=tmp_path / "run", batch_size=4, shard_size=6)
    with pytest.raises(UnknownNameError, match="engine 'dask'"):
        certify_dataset(model, data, out=tmp_path / "run", engine="dask")
    with pytest.raises(InvalidInputError, match="threads must be a positive integer, got 0"):
        certify_dataset(model, data, out=tmp_path / "run", threads=0)
    with pytest.raises(InvalidInputError, match="cannot be made"):
        certify_dataset(model, data, out=data / "run")
