"""Shards on Ray: a worker killed, the driver killed, the run gone on with; nothing lost, nothing twice, the same bits.

Ray's processes take their time to start, and end their driver where they cannot: all of it happens in processes apart.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from acert_zoo.certificates.certify_dataset import certify_dataset
from acert_zoo.certificates.results import Certificates
from acert_zoo.zoo.model import AcertModel
from tests.support.cli import ROOT, environment
from tests.support.ray_run import BEGUN, SIZES, VERIFIED

N = 40  # ten shards
LIMIT = 240  # seconds


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", np.random.default_rng(2).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8))
    return tmp_path / "x.npy"


def start(data: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.support.ray_run", str(data), str(out), str(out.parent / "killed")]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def begun(said: str) -> str:
    """What a run said; the test is skipped where Ray itself did not start."""
    if BEGUN not in said:
        pytest.skip(f"Ray cannot begin a session on this machine now: {said.strip().splitlines()[-1:]}")
    return said


def test_a_killed_worker_and_a_killed_driver(model: AcertModel, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    out = tmp_path / "run"
    driver = start(data, out)
    deadline = time.monotonic() + LIMIT
    while len(list(out.glob("shard-*"))) < 5 and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    driver.kill()
    said = begun(driver.communicate()[0])
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("shard-*")}
    assert 5 <= len(before) < N // 4, said  # it was killed half way
    assert (tmp_path / "killed").exists()

    driver = start(data, out)
    said = begun(driver.communicate(timeout=LIMIT)[0])
    assert driver.returncode == 0, said
    assert f"{VERIFIED} 10" in said
    assert all((out / name).stat().st_mtime_ns == when for name, when in before.items())  # nothing twice
    local = certify_dataset(model, data, out=tmp_path / "local", **SIZES).load()
    result = Certificates.from_lines(
        local.header, [line for path in sorted(out.glob("shard-*")) for line in Certificates.load(path).lines()]
    )
    assert result.ids == [str(i) for i in range(N)]  # nothing lost
    assert result.radius.tolist() == local.radius.tolist()
    assert result.margin.nan_to_num(nan=-1).tolist() == local.margin.nan_to_num(nan=-1).tolist()
