"""training/cascade.py: from the registry to a cascade that loads by name.

Also tested here: training/cascades/members.py.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import acert_zoo
from acert_zoo import Cascade
from acert_zoo.cli import main as cli
from acert_zoo.zoo.hub_entries import entry_points
from tests.support.zoo import empty_zoo, make_data, make_run, plain_figures, use_registry
from training import cascade as module
from training.export import export
from training.results.zoo_folder import ZooFolder


def test_a_gate_is_written_in_steps_of_a_255th() -> None:
    assert module.gate_text(Fraction(17, 2550)) == "1.7/255"
    assert module.gate_text(Fraction(1, 255)) == "1/255"
    assert module.gate_text(Fraction(1, 7)) == "1/7"


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ZooFolder, str]:
    """A zoo with two robust models and an accurate one, all of them tiny, and a data set of random images."""
    plain_figures(monkeypatch)
    runs = [make_run(tmp_path / f"run{i}", seed=i) for i in (0, 1)]
    runs.append(make_run(tmp_path / "accurate", seed=2, objective="standard", kappa=1.0))
    data = str(make_data(tmp_path / "data", runs[0]))
    zoo = empty_zoo(tmp_path / "zoo")
    for run, name in zip(runs, ("tiny_a", "tiny_b", "tiny_accurate"), strict=True):
        export(run, name, zoo=zoo, data_root=data)
    use_registry(monkeypatch, zoo)
    return zoo, data


def test_from_the_registry_to_a_cascade_that_loads_by_name(zoo, tmp_path) -> None:
    folder, data = zoo
    runner = CliRunner()
    common = ["--data-root", data, "--depth", "2", "--out", str(tmp_path / "out")]
    result = runner.invoke(module.main, ["front", *common])
    assert result.exit_code == 0, result.output
    assert "accuracy %" in result.output
    assert len(list((tmp_path / "out" / "measured").glob("*.npz"))) == 3
    assert list((tmp_path / "out").glob("cascades-cifar10-*.svg"))

    arguments = ["add", "tiny_cascade", "--member", "tiny_a", "--member", "tiny_accurate", "--gate", "0.2/255"]
    result = runner.invoke(module.main, [*arguments, *common, "--root", str(folder.root)])
    assert result.exit_code == 0, result.output
    cascade = acert_zoo.load_model("tiny_cascade")
    assert isinstance(cascade, Cascade)
    assert cascade.info is not None
    assert cascade.info.recipe["gates"] == ["0.2/255"]
    assert cascade.info.metric("accuracy").n == 40
    document = json.loads((folder.package / cascade.info.file).read_text())
    assert [m["name"] for m in document["members"]] == ["tiny_a.v1", "tiny_accurate.v1"]
    assert cascade.weights_sha256 == cascade.info.sha256
    assert torch.equal(cascade.route(torch.zeros(1, 3, 32, 32)) < 2, torch.tensor([True]))

    text = entry_points()["tiny_cascade"].__doc__
    assert f"Certified cascade of zoo models; {cascade.info.parameters:,} parameters." in text
    shown = CliRunner().invoke(cli, ["certify", "--model", "tiny_cascade"])
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith("tiny_cascade.v1  (cifar10, a certified cascade)")
    assert "answered by" in shown.output

    before = folder.registry.read_bytes()
    again = runner.invoke(module.main, [*arguments, *common, "--root", str(folder.root)])
    assert "is this cascade already" in again.output
    assert folder.registry.read_bytes() == before


def test_a_wanted_accuracy_is_met_on_the_validation_split(zoo, tmp_path) -> None:
    folder, data = zoo
    common = ["--data-root", data, "--depth", "2", "--out", str(tmp_path / "out"), "--root", str(folder.root)]
    result = CliRunner().invoke(module.main, ["add", "tiny_wanted", "--accuracy", "5", *common])
    assert result.exit_code == 0, result.output
    info = acert_zoo.model_info("tiny_wanted")
    assert info.recipe["validation_accuracy"] >= 5
    assert info.recipe["chosen"] == "on the validation split"
    result = CliRunner().invoke(module.main, ["add", "tiny_more", "--accuracy", "100.5", *common])
    assert result.exit_code == 2
    assert "no cascade reaches 100.5 %" in result.output
    assert "tiny_more" not in acert_zoo.list_models()
