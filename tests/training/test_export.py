"""From a run to the zoo: one command, versions, what is lost comes back, and what fails leaves the zoo as it was."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import acert_zoo
from acert_zoo.errors import InvalidInputError
from acert_zoo.zoo import registry, weights
from tests.support.zoo import empty_zoo, make_data, make_run, plain_figures, snapshot
from training import export as module
from training.export import export
from training.report import cards, zoo_entry
from training.results.zoo_folder import ZooFolder
from training.run.deployment import read_run


@pytest.fixture(autouse=True)
def _plain_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    plain_figures(monkeypatch)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


@pytest.fixture
def data(tmp_path: Path, run: Path) -> str:
    return str(make_data(tmp_path / "data", run))


def test_one_command_from_run_to_zoo(tmp_path: Path, run: Path, data: str) -> None:
    zoo = empty_zoo(tmp_path / "zoo")
    arguments = [str(run), "--name", "cifar10_small", "--data-root", data, "--root", str(zoo.root)]
    result = CliRunner().invoke(module.main, arguments)
    assert result.exit_code == 0, result.output
    (info,) = registry.read_registry(zoo.registry)
    assert (info.versioned_name, info.kappa, info.eps_max, info.method) == (
        "cifar10_small.v1",
        0.25,
        "8.8/255",
        "acert",
    )
    assert info.training["seconds"] == 4321.0
    assert info.training["epochs"] == 2
    content = weights.read_verified(zoo.package / info.file, info.sha256, info.size)
    metadata = weights.read_metadata(content, "it")
    assert set(metadata) == {"name", "kappa", "arch", "dataset", "commit", "recipe"}
    assert metadata["kappa"] == "0.25"
    tensors = weights.read_tensors(content, "it")
    assert not any("running" in name for name in tensors)
    stored = json.loads(zoo.evaluation("cifar10_small", 1).read_text())
    assert stored["weights_sha256"] == info.sha256
    assert stored["n"] == 40
    assert [m.value for m in info.metrics] == [m["value"] for m in stored["metrics"]]
    radii = np.load(zoo.radii("cifar10_small", 1))
    assert radii.shape == (40,)
    assert (radii > 0).sum() >= 10
    assert "cifar10_small" in (zoo.cards / "README.md").read_text()
    card = (zoo.cards / "cifar10_small.md").read_text()
    assert info.sha256 in card
    assert "2 of these test images are JPEG approximations" in card


def test_exporting_again_changes_nothing_and_other_weights_get_a_version(tmp_path: Path, run: Path, data: str) -> None:
    zoo = empty_zoo(tmp_path / "zoo")
    first = export(run, "cifar10_small", zoo=zoo, data_root=data)
    before = snapshot(zoo.root)
    again = export(run, "cifar10_small", zoo=zoo, data_root=data)
    assert first.changed
    assert not again.changed
    assert snapshot(zoo.root) == before
    other = make_run(tmp_path / "other", seed=1)
    second = export(other, "cifar10_small", zoo=zoo, data_root=data)
    assert second.info.version == 2
    assert second.info.sha256 != first.info.sha256
    after = snapshot(zoo.root)
    kept = "acert_zoo/checkpoints/cifar10_small.v1.safetensors"
    assert after[kept] == before[kept]
    assert after["evaluations/cifar10_small.v1.json"] == before["evaluations/cifar10_small.v1.json"]
    assert "cifar10_small.v1" in after["model_cards/cifar10_small.md"].decode()


def test_a_trials_figures_are_replaced_by_those_of_all_images(tmp_path: Path, run: Path, data: str) -> None:
    zoo = empty_zoo(tmp_path / "zoo")
    trial = export(run, "cifar10_small", zoo=zoo, data_root=data, limit=10)
    assert not export(run, "cifar10_small", zoo=zoo, data_root=data, limit=10).changed
    whole = export(run, "cifar10_small", zoo=zoo, data_root=data)
    assert whole.changed
    (info,) = registry.read_registry(zoo.registry)
    assert (info.versioned_name, info.sha256) == ("cifar10_small.v1", trial.info.sha256)
    assert {m.n for m in info.metrics} == {40}
    assert np.load(zoo.radii("cifar10_small", 1)).shape == (40,)


def test_a_lost_checkpoint_file_comes_back(tmp_path: Path, run: Path, data: str) -> None:
    zoo = empty_zoo(tmp_path / "zoo")
    export(run, "cifar10_small", zoo=zoo, data_root=data)
    before = snapshot(zoo.root)
    zoo.checkpoint("cifar10_small", 1).unlink()
    (zoo.cards / "cifar10_small.md").unlink()
    export(run, "cifar10_small", zoo=zoo, data_root=data)
    assert snapshot(zoo.root) == before


@pytest.mark.parametrize("where", [(zoo_entry, "store_evaluation"), (module, "evaluate_with_bar"), (cards, "index")])
def test_an_export_that_fails_leaves_the_zoo_as_it_was(
    tmp_path: Path, run: Path, data: str, monkeypatch, where: tuple[ModuleType, str]
) -> None:
    zoo = empty_zoo(tmp_path / "zoo")
    before = snapshot(zoo.root)

    def killed(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*where, killed)
        with pytest.raises(KeyboardInterrupt):
            export(run, "cifar10_small", zoo=zoo, data_root=data)
    assert snapshot(zoo.root) == before
    assert export(run, "cifar10_small", zoo=zoo, data_root=data).info.version == 1


def test_unfinished_runs_and_other_folders_are_refused(tmp_path: Path, data: str) -> None:
    zoo = empty_zoo(tmp_path / "zoo")
    half = make_run(tmp_path / "half", epochs_done=1)
    with pytest.raises(InvalidInputError, match="1 of 2 epochs"):
        export(half, "cifar10_small", zoo=zoo, data_root=data)
    assert export(half, "cifar10_small", zoo=zoo, data_root=data, unfinished=True).info.training["epochs"] == 1
    with pytest.raises(InvalidInputError, match=r"recipe\.json"):
        read_run(tmp_path)
    (half / "last.pt").write_bytes(b"nothing")
    with pytest.raises(InvalidInputError, match=r"last\.pt"):
        read_run(half)


def test_a_bad_name_is_refused_before_the_long_part(tmp_path: Path, run: Path, data: str, monkeypatch) -> None:
    monkeypatch.setattr(module, "evaluate_with_bar", lambda *a, **k: pytest.fail("evaluated"))
    with pytest.raises(InvalidInputError, match="lower-case"):
        export(run, "CIFAR 10", zoo=empty_zoo(tmp_path / "zoo"), data_root=data)


def test_files_whose_header_length_looks_like_a_pickle_are_read() -> None:
    lengths = set()
    for extra in range(0, 2000, 8):
        content = weights.serialize({"w": torch.ones(1)}, {"name": "x" * extra})
        lengths.add(content[:2])
        assert weights.read_tensors(content, "it")["w"].item() == 1.0
    assert {b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"} <= lengths


@pytest.mark.parametrize("name", acert_zoo.list_models() or ["none"])
def test_registered_models_have_their_evaluation(name: str) -> None:
    if name == "none":
        pytest.skip("the registry has no models yet")
    info, zoo = acert_zoo.model_info(name), ZooFolder()
    stored = json.loads(zoo.evaluation(info.name, info.version).read_text())
    assert stored["weights_sha256"] == info.sha256
    fields = ("metric", "value", "unit", "n", "dataset", "split")
    assert [tuple(getattr(m, f) for f in fields) for m in info.metrics] == [
        tuple(m[f] for f in fields) for m in stored["metrics"]
    ]
    assert len(np.load(zoo.radii(info.name, info.version))) in (min(stored["n"], 1000), stored["n"])
