from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import acert_zoo
from acert_zoo.errors import InvalidInputError, WeightsError
from acert_zoo.zoo import registry, weights
from tests.support.zoo import empty_zoo, make_data, make_run, plain_figures, small_recipe, snapshot
from training import export as module
from training.export import export
from training.report import cards, zoo_entry
from training.results.zoo_folder import ZooFolder
from training.run.deployment import check_folding, deployed_model, fold, read_run, trained_model


@pytest.fixture(autouse=True)
def _plain_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    plain_figures(monkeypatch)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


@pytest.fixture
def data(tmp_path: Path, run: Path) -> str:
    return str(make_data(tmp_path / "data", run))


def small(batchnorm: bool) -> nn.Sequential:
    middle = [nn.BatchNorm2d(1, eps=1.0)] if batchnorm else []
    return nn.Sequential(nn.Conv2d(1, 1, 1), *middle, nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))


def test_folding_by_hand() -> None:
    trained, deployed = small(True).eval(), small(False)
    with torch.no_grad():
        trained[0].weight.fill_(3.0)
        trained[0].bias.fill_(1.0)
        batchnorm = trained[1]
        batchnorm.weight.fill_(4.0)
        batchnorm.bias.fill_(0.5)
        batchnorm.running_mean.fill_(2.0)
        batchnorm.running_var.fill_(3.0)  # scale = 4 / sqrt(3 + 1) = 2, shift = 0.5 - 2 * 2 = -3.5
    fold(trained, deployed)
    assert deployed[0].weight.item() == 6.0
    assert deployed[0].bias.item() == 2 * 1.0 - 3.5
    assert torch.equal(deployed[3].weight, trained[4].weight)
    assert not deployed.training


def test_folded_subnormals_become_zero() -> None:
    trained, deployed = small(True).eval(), small(False)
    with torch.no_grad():
        trained[0].weight.fill_(1e-39)
        trained[1].weight.fill_(1.0)
    fold(trained, deployed)
    assert deployed[0].weight.item() == 0.0


def test_folding_rounds_float64_products_once() -> None:
    recipe = small_recipe()
    from tests.support.zoo import random_network

    trained = random_network(recipe, 3)
    deployed = fold(trained, module.architectures.build("cnn", **module.arch_arguments(recipe)))
    conv, norm = trained.layers[1], trained.layers[2]
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    exact = conv.weight.double() * scale.view(-1, 1, 1, 1)
    error = (deployed.layers[1].weight.double() - exact).abs()
    assert bool((error <= 2.0**-24 * exact.abs() * (1 + 1e-12)).all())  # half a unit in the last place


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[0].weight.data.fill_(float("nan")), "not finite"),
        (lambda t: t[0].weight.data.fill_(3e38), "not finite"),
    ],
)
def test_unusable_weights_are_refused(change, message) -> None:
    trained = small(True).eval()
    trained[1].weight.data.fill_(100.0)
    change(trained)
    with pytest.raises(WeightsError, match=message):
        fold(trained, small(False))


def test_other_architecture_is_refused() -> None:
    with pytest.raises(WeightsError, match="do not match"):
        fold(small(True).eval(), nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))


def test_batchnorm_without_affine_layer_before_is_refused() -> None:
    trained = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    with pytest.raises(WeightsError, match="cannot be folded"):
        fold(trained, nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))


def test_a_folded_network_that_differs_is_refused(run: Path) -> None:
    recipe, state = read_run(run)
    trained, deployed = trained_model(recipe, state), deployed_model(recipe, state)
    images = torch.rand(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert check_folding(trained, deployed, images) < 1e-5
    deployed.layers[-1].weight.data *= 1 + 1e-4
    with pytest.raises(WeightsError, match="2e-05 is accepted"):
        check_folding(trained, deployed, images)


def test_a_bfloat16_run_keeps_bfloat16_weights_but_in_the_head(run: Path) -> None:
    recipe, state = read_run(run)
    exact = deployed_model(recipe, state)
    rough = deployed_model(dataclasses.replace(recipe, precision="bfloat16"), state)
    weights = [(a, b) for a, b in zip(exact.parameters(), rough.parameters(), strict=True) if a.dim() > 1]
    assert all(torch.equal(a.bfloat16().float(), b) and not torch.equal(a, b) for a, b in weights[:-1])
    assert torch.equal(*weights[-1])
    assert all(torch.equal(a, b) for a, b in zip(exact.parameters(), rough.parameters(), strict=True) if a.dim() == 1)


def test_averaged_weights_are_exported_where_the_run_has_them(run: Path) -> None:
    recipe, state = read_run(run)
    averaged = {k: v + 1 if k.endswith("layers.1.weight") else v for k, v in state["model"].items()}
    plain, ema = trained_model(recipe, state), trained_model(recipe, {**state, "ema": averaged})
    assert torch.equal(ema.layers[1].weight, plain.layers[1].weight + 1)


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
