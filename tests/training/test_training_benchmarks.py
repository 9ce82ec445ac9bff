"""The benchmarks of training on a tiny recipe: they run, say what they promise, and go on where they were."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from tests.support.training import write_dataset, write_recipe

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("ACERT_ZOO_DATA", str(write_dataset(tmp_path / "data")))
    return importlib.import_module


def run(module: ModuleType, *arguments: object) -> str:
    result = CliRunner().invoke(module.main, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_training_step(load, tmp_path: Path) -> None:
    recipe, out = write_recipe(tmp_path / "tiny.toml"), tmp_path / "out.json"
    text = run(load("training_step"), "--recipe", recipe, "--model", "", "--steps", 2, "--json", out)
    assert "full: ACERT step / IBP step" in text
    results = json.loads(out.read_text())["results"]
    for phase in ("full", "ramp"):
        assert results[f"{phase}: ACERT step / IBP step"] > 0
        assert 0 <= results[f"{phase}: IBP evaluations of the search per sample"] <= 2


def test_gpu_on_a_cpu(load, tmp_path: Path) -> None:
    recipe, out = write_recipe(tmp_path / "tiny.toml"), tmp_path / "out.json"
    module = load("gpu")
    fast = ("--set", "compile=false", "--steps", 1, "--images", 8, "--model", "mnist_accurate")
    text = run(module, "--device", "cpu", "--recipe", recipe, *fast, "--json", out)
    assert "float64 proofs" in text
    results = json.loads(out.read_text())["results"]
    assert results["float64 proofs"] == "on cpu"
    assert results["step, bfloat16: ms"] > 0
    assert results["radii proved on one of both alone"] == 0
    assert results["largest relative difference of radii"] == 0


def test_radius_search_quality(load, tmp_path: Path) -> None:
    recipe, runs, out = write_recipe(tmp_path / "tiny.toml"), tmp_path / "runs", tmp_path / "out.json"
    module = load("radius_search_quality")
    arguments = ["--recipe", recipe, "--epochs", 2, "--out", runs, "--set", "optimizer.lr=0.01"]
    assert len(run(module, *arguments, "--dry").splitlines()) == 4
    assert not runs.exists()
    text = run(module, *arguments, "--json", out)
    assert text.count("epoch 2") == 4
    rows = json.loads(out.read_text())["results"]
    assert [(r["search"], r["seed"]) for r in rows] == [("cheap", 0), ("to 1e-6", 0), ("cheap", 1), ("to 1e-6", 1)]
    assert rows[1]["evaluations"] > rows[0]["evaluations"] > 0
    again = run(module, *arguments)
    assert "epoch" not in again  # all of it was there
    assert again.strip() == text[text.index("| search") :].strip()
    refused = CliRunner().invoke(module.main, [str(a) for a in arguments[:-1]] + ["optimizer.lr=0.02"])
    assert refused.exit_code == 1
    assert "other settings" in refused.output


def test_methods(load, tmp_path: Path) -> None:
    recipe, runs, out = write_recipe(tmp_path / "tiny.toml"), tmp_path / "runs", tmp_path / "out.json"
    module = load("methods")
    arguments = ["--recipe", recipe, "--model", "", "--method", "ibp", "--method", "mtl-ibp", "--epochs", 1]
    arguments += ["--eps", 0.1, "--images", 3, "--budget", 1, "--out", runs]
    arguments += ["--set", "precision=float32", "--set", "compile=false"]
    assert len(run(module, *arguments, "--dry").splitlines()) == 8
    assert not runs.exists()
    text = run(module, *arguments, "--json", out)
    plan = json.loads((runs / "plan.json").read_text())
    assert set(plan["epochs"]) == set(plan["step_ms"]) == set(module.METHODS)
    assert plan["epochs"]["acert"] == 1
    assert all(epochs >= 1 for epochs in plan["epochs"].values())
    rows = json.loads(out.read_text())["results"]
    assert [(row["method"], row["epochs"]) for row in rows] == [
        (method, plan["epochs"][method]) for method in ("ibp", "mtl-ibp") for _ in range(4)
    ]
    assert all(0 <= row["ibp"] <= row["accuracy"] <= 100 for row in rows)
    assert run(module, *arguments).strip() == text[text.index("| method") :].strip()  # all of it was there


def test_front_of_methods(load) -> None:
    module = load("methods")
    best, beaten = {"accuracy": 60.0, "ibp": 0.0, "decided": 50.0}, {"accuracy": 59.0, "ibp": 50.0, "decided": 40.0}
    other = {"accuracy": 50.0, "ibp": 51.0, "decided": 20.0}
    assert [module.on_front(row, [best, beaten, other]) for row in (best, beaten, other)] == [True, False, True]


def test_step_precision(load, tmp_path: Path) -> None:
    recipe, module = write_recipe(tmp_path / "tiny.toml"), load("step_precision")
    assert [row[2][0] for row in module.ROWS] == ["precision=float32"] * 2 + ["precision=bfloat16"] * 3
    seconds = json.loads(run(module, "--recipe", recipe, "--steps", 2, "--row", 0))
    assert len(seconds) == 2
    assert min(seconds) > 0
