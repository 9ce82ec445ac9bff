"""kill -9 at several moments of one run, each followed by --resume: the final weights are those of an unbroken run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import torch

from tests.support.training import TRAIN, one_thread, run_train, same_weights
from tests.training.conftest import FinishedRun

# Runs training/train.py with the arguments that follow, and kills its own process at the named moment.
KILLER = """
import os, runpy, signal, sys
sys.path.insert(0, os.path.dirname(os.path.dirname(sys.argv[2])))
import torch
from training.run.run_folder import RunFolder
moment = sys.argv.pop(1)
sys.argv = sys.argv[1:]
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
replace, save, step, steps = os.replace, RunFolder.save, torch.optim.Adam.step, []
def killing_replace(source, target):
    if str(target).endswith("last.pt"):
        die()
    replace(source, target)
def killing_save(self, state):
    if state["step"] % 4 == 0:
        die()
    save(self, state)
def killing_step(self, *arguments, **options):
    step(self, *arguments, **options)
    steps.append(1)
    if len(steps) == 3:
        die()
if moment == "state written, not yet in place":
    os.replace = killing_replace
elif moment == "epoch logged, its state not yet saved":
    RunFolder.save = killing_save
elif moment == "weights updated":
    torch.optim.Adam.step = killing_step
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def epochs(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_killed_at_several_moments(finished: FinishedRun, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def killed(moment: str, *arguments: object) -> None:
        command = [sys.executable, "-c", KILLER, moment, str(TRAIN), *map(str, arguments)]
        result = subprocess.run(command, env=one_thread(), capture_output=True, text=True, check=False, timeout=300)
        assert result.returncode == -signal.SIGKILL, result.stderr

    def saved_step() -> int:
        return torch.load(run / "last.pt", weights_only=True)["step"]

    killed("state written, not yet in place", *finished.arguments, "--run", run)
    assert not (run / "last.pt").exists()
    assert list(run.glob(".last.pt.*.part"))
    killed("weights updated", "--resume", run, *finished.data)
    assert saved_step() == 2
    killed("epoch logged, its state not yet saved", "--resume", run, *finished.data)
    assert (saved_step(), len(epochs(run))) == (3, 1)
    command = [sys.executable, str(TRAIN), "--resume", str(run), *finished.data]
    with subprocess.Popen(command, env=one_thread(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("training: ")
        assert process.stdout.readline().startswith("epoch 1 ")
        process.kill()  # from outside, wherever it is just now
    assert process.returncode == -signal.SIGKILL
    resumed = run_train("--resume", run, *finished.data)
    assert resumed.returncode == 0, resumed.stderr
    assert same_weights(run, finished.folder)
    assert epochs(run) == epochs(finished.folder)
    assert not list(run.glob(".*"))
