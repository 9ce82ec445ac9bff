"""training/train.py as a user runs it: a command in a process of its own, on a small data set without test files."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from acert_zoo.errors import UnknownNameError
from tests.support.training import TRAIN, final_weights, one_thread, run_train, same_weights
from tests.training.conftest import FinishedRun
from training.train import Display, main, resolve


def test_a_run_and_its_folder(finished: FinishedRun) -> None:
    run, lines = finished.folder, finished.output.splitlines()
    assert lines.pop(0) == "training: 8 steps to go, 4 an epoch"
    assert [line.split()[:3] for line in lines[:2]] == [["epoch", "1", "loss"], ["epoch", "2", "loss"]]
    for word in ("eps*", "evaluations", "validation: accuracy", "ACR", "certified at", " s"):
        assert all(word in line for line in lines[:2]), word
    assert lines[2:] == [f"finished: {run}"]  # one line an epoch, no progress bar in a pipe
    assert sorted(p.name for p in run.iterdir()) == ["environment.json", "last.pt", "log.jsonl", "recipe.json"]
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    measured = {"loss", "natural_loss", "robust_loss", "train_accuracy", "mean_radius", "evaluations", "seconds"}
    assert measured | {"accuracy", "acr", "acr_percent", "certified_0.1"} <= rows[0].keys()
    assert json.loads((run / "recipe.json").read_text())["kappa"] == 0.5
    environment = json.loads((run / "environment.json").read_text())
    assert environment["versions"]["torch"] == torch.__version__
    assert (environment["threads"], environment["processes"], environment["device"]) == (1, 1, "cpu")
    assert "commit" in environment


def test_stopped_full_disk_and_resumed_to_the_same_weights(finished: FinishedRun, tmp_path: Path) -> None:
    run = tmp_path / "run"
    stopped = run_train(*finished.arguments, "--run", run, "--max-minutes", 0)
    assert stopped.returncode == 0
    assert stopped.stdout.splitlines()[1:] == [f"stopped at step 1; continue with --resume {run}"]
    before = (run / "last.pt").read_bytes()

    def small_disk() -> None:  # longer files fail to be written, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, len(before) // 2))

    full = run_train("--resume", run, *finished.data, preexec_fn=small_disk)
    assert full.returncode == 1
    assert "last.pt cannot be written (File too large); the last good state is kept" in full.stderr
    assert "Traceback" not in full.stderr
    assert (run / "last.pt").read_bytes() == before
    resumed = run_train("--resume", run, *finished.data)
    assert resumed.returncode == 0, resumed.stderr
    assert same_weights(run, finished.folder)


def test_a_loss_that_is_not_finite(finished: FinishedRun, tmp_path: Path) -> None:
    result = run_train(*finished.arguments, "--run", tmp_path / "run", "--set", "optimizer.lr=1e30")
    assert result.returncode == 1
    assert "not finite at step" in result.stderr
    assert "the last good state is kept" in result.stderr
    assert "Traceback" not in result.stderr
    assert all(torch.isfinite(v).all() for v in final_weights(tmp_path / "run").values())


def test_ctrl_c_saves(finished: FinishedRun, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, str(TRAIN), *finished.arguments, "--run", str(run), "--set", "epochs=500"]
    with subprocess.Popen(command, env=one_thread(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("training: ")
        assert process.stdout.readline().startswith("epoch 1 ")
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 130
    assert f"continue with --resume {run}" in rest
    assert torch.load(run / "last.pt", weights_only=True)["step"] >= 4


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--set", "optimizer.momentum=1"], 2, ["optimizer.momentum", "optimizer.lr", "radius.eps_max"]),
        (["--data-root", "nowhere"], 1, ["mnist", "nowhere"]),
    ],
)
def test_refusals_are_short_and_write_nothing(
    finished: FinishedRun, tmp_path: Path, arguments: list[str], code: int, words: list[str]
) -> None:
    run = tmp_path / "run"
    result = run_train("--recipe", finished.recipe, *arguments, "--run", run)
    assert result.returncode == code, result.stderr
    assert all(word in result.stderr for word in words), result.stderr
    assert "Traceback" not in result.stderr
    assert not run.exists()


def test_an_unknown_objective_ends_before_data_is_looked_for() -> None:
    with pytest.raises(UnknownNameError, match="did you mean acert"):
        resolve("cifar10", None, ("objective=acret",), None, None)


def test_resuming_takes_no_settings_and_needs_a_run(finished: FinishedRun, tmp_path: Path) -> None:
    run = str(finished.folder)
    for extra in (["--recipe", "cifar10"], ["--kappa", "0.5"], ["--set", "epochs=3"], ["--run", str(tmp_path / "x")]):
        result = CliRunner().invoke(main, ["--resume", run, *extra])
        assert result.exit_code == 2, result.output
        assert "--resume takes the recipe" in result.output
    for other in (tmp_path, finished.recipe):  # an empty folder, and a file
        result = CliRunner().invoke(main, ["--resume", str(other)])
        assert result.exit_code == 1, result.output
        assert "is not the folder of a training run" in result.output


def test_a_run_folder_that_cannot_be_made(finished: FinishedRun) -> None:
    result = CliRunner().invoke(main, [*finished.arguments, "--run", str(finished.recipe)])
    assert result.exit_code == 1, result.output
    assert f"the run's folder {finished.recipe} cannot be made" in result.output


def test_an_unknown_device(finished: FinishedRun) -> None:
    result = CliRunner().invoke(main, ["--recipe", str(finished.recipe), "--device", "tpu"])
    assert result.exit_code == 2
    assert "unknown device 'tpu'; known: cpu, cuda, cuda:N" in result.output


def test_a_terminal_shows_a_bar_with_the_running_metrics(finished: FinishedRun, tmp_path: Path) -> None:
    options = [*finished.arguments, "--run", str(tmp_path / "run"), "--set", "epochs=1"]
    shown = CliRunner(env={"FORCE_COLOR": "1"}).invoke(main, options)  # rich takes it for a terminal
    assert shown.exit_code == 0, shown.output
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.output)
    assert re.search(r"epoch 1/1 .*[0-4]/4 .*loss \d\.\d{3}  accuracy +\d+\.\d %  eps\* 0\.0", text), text
    assert re.search(r"[\r\n]epoch 1  loss \d\.\d{4}  eps\* .* \|  \d+ s", text)


def test_without_a_terminal_a_line_says_now_and_then_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = SimpleNamespace(
        step=0,
        total_steps=3000,
        steps_per_epoch=1000,
        epoch=0,
        recipe=SimpleNamespace(epochs=3),
        metrics=lambda: {"loss": 1.5, "train_accuracy": 0.25, "mean_radius": 0.01},
    )
    now = [100.0]
    monkeypatch.setattr("training.train.time.monotonic", lambda: now[0])
    with Display(trainer) as display:  # type: ignore[arg-type]
        for _ in range(200):
            trainer.step, now[0] = trainer.step + 1, now[0] + 1.0
            display.step(trainer)  # type: ignore[arg-type]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "training: 3,000 steps to go, 1,000 an epoch"
    assert lines[1] == "step 60 of 3,000 (epoch 1)  loss 1.500  accuracy 25.0 %  eps* 0.01000"
    assert [line.split()[1] for line in lines[1:]] == ["60", "120", "180"]
