"""load_model and AcertModel: names become verified networks, and what does not fit is refused.

Also tested here: zoo/load.py, zoo/meta_network.py.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import acert_zoo
from acert_zoo.errors import AcertZooError, InvalidInputError, UnknownNameError, WeightsError
from acert_zoo.network.tracing import trace
from acert_zoo.zoo import registry, weights
from acert_zoo.zoo.model import AcertModel
from tests.support.models import KWARGS, files_of, record_of, small_model, with_config

ROOT = Path(__file__).resolve().parents[2]
IMAGES = torch.linspace(0, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small_model().save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def zoo(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder of its own, whose registry has the one model `small`."""
    package = tmp_path / "package"
    (package / "checkpoints").mkdir(parents=True)
    (package / "zoo.json").write_text('{"schema_version": 1, "models": []}')
    (package / "checkpoints" / "small.v1.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    registry.add_record(package / "zoo.json", record_of(small_model(), folder))
    monkeypatch.setattr(registry, "PACKAGE", package)
    monkeypatch.setattr(registry, "REGISTRY_PATH", package / "zoo.json")
    return package


def rewrite(folder: Path, **changes: Any) -> None:
    files = with_config({p.name: p.read_bytes() for p in folder.iterdir()}, **changes)
    (folder / "config.json").write_bytes(files["config.json"])


def put_weights(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Other tensors, with a digest that is right."""
    sha256, size = weights.write_safetensors(folder / "model.safetensors", tensors)
    rewrite(folder, sha256=sha256, size=size)


def test_the_four_kinds_of_names_give_the_same_network(zoo: Path, folder: Path) -> None:
    expected = small_model()(IMAGES)
    for name in ("small", "small.v1", folder, str(folder), folder / "model.safetensors"):
        model = acert_zoo.load_model(name)
        assert isinstance(model, AcertModel)
        assert not model.training
        assert torch.equal(model(IMAGES), expected)
        assert model.info is not None
        assert model.info.sha256 == model.weights_sha256 == registry.model_info("small").sha256
        assert (model.input_shape, model.num_classes) == ((3, 8, 8), 4)
    assert torch.equal(AcertModel.from_pretrained("small")(IMAGES), expected)
    assert torch.equal(AcertModel.from_pretrained(folder)(IMAGES), expected)


def test_a_weights_file_of_the_registry_is_known_by_its_digest(zoo: Path, folder: Path, tmp_path: Path) -> None:
    tensors = weights.read_tensors((folder / "model.safetensors").read_bytes(), "w")
    weights.write_safetensors(tmp_path / "renamed.safetensors", tensors)  # without the config in its metadata
    with pytest.raises(WeightsError, match="not a registered checkpoint and its metadata has no 'config'"):
        acert_zoo.load_model(tmp_path / "renamed.safetensors")
    (tmp_path / "copy.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    assert acert_zoo.load_model(tmp_path / "copy.safetensors").info == registry.model_info("small")


def test_a_registered_name_wins_over_a_folder_of_that_name(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small").mkdir()
    assert acert_zoo.load_model("small").info == registry.model_info("small")


def test_names_that_mean_nothing(zoo: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown model 'smal'; did you mean small"):
        acert_zoo.load_model("smal")
    with pytest.raises(UnknownNameError, match="there is no such folder"):
        acert_zoo.load_model(tmp_path / "nothing")
    with pytest.raises(WeightsError, match="there is no file"):
        acert_zoo.load_model(tmp_path / "nothing.safetensors")
    with pytest.raises(WeightsError, match=r"holds no config\.json"):
        acert_zoo.load_model(tmp_path)
    with pytest.raises(InvalidInputError, match="expected owner/name"):
        acert_zoo.load_model("hf-hub:owner")
    with pytest.raises(InvalidInputError, match="expected owner/name"):
        acert_zoo.load_model("hf-hub:../../etc")


def test_altered_and_truncated_bundled_files_are_refused_and_left(zoo: Path) -> None:
    path = zoo / "checkpoints" / "small.v1.safetensors"
    good = path.read_bytes()
    for bad in (good[:-1], good + b"\0", good[:-1] + bytes([good[-1] ^ 1])):
        path.write_bytes(bad)
        with pytest.raises(WeightsError, match="left where it is"):
            acert_zoo.load_model("small")
        assert path.read_bytes() == bad
    path.unlink()
    with pytest.raises(WeightsError, match=r"small\.v1 is missing; install acert-zoo again"):
        acert_zoo.load_model("small")


def test_a_network_that_does_not_give_its_recorded_logits_is_refused(folder: Path) -> None:
    expected = json.loads((folder / "config.json").read_text())["expected_logits"]
    scale = max(abs(v) for row in expected["logits"] for v in row)
    expected["logits"][1][2] += 1e-6 * scale  # another machine's rounding
    rewrite(folder, expected_logits=expected)
    acert_zoo.load_model(folder)
    expected["logits"][1][2] += 1e-3 * scale
    rewrite(folder, expected_logits=expected)
    with pytest.raises(WeightsError, match="does not give its recorded logits"):
        acert_zoo.load_model(folder)


def test_missing_unexpected_and_misshapen_tensors_are_named(folder: Path) -> None:
    state = small_model().classifier.state_dict()
    first, *_, last = state
    put_weights(folder, {k: v for k, v in state.items() if k != last})
    with pytest.raises(WeightsError, match=f"missing tensors {last}; unexpected none"):
        acert_zoo.load_model(folder)
    put_weights(folder, {**state, "extra": torch.ones(1)})
    with pytest.raises(WeightsError, match="missing tensors none; unexpected extra"):
        acert_zoo.load_model(folder)
    put_weights(folder, {**state, first: torch.ones(7)})
    with pytest.raises(WeightsError, match=rf"'{first}' is torch.float32 \(7,\) instead of torch.float32 \(3,\)"):
        acert_zoo.load_model(folder)


def test_other_dtypes_are_not_converted_silently(folder: Path) -> None:
    import hashlib

    from safetensors.torch import save

    state = {k: v.double() if "bias" in k else v for k, v in small_model().classifier.state_dict().items()}
    content = save(state)
    (folder / "model.safetensors").write_bytes(content)
    rewrite(folder, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    with pytest.raises(WeightsError, match=r"torch\.float64 .* instead of torch\.float32"):
        acert_zoo.load_model(folder)


def test_saving_again_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    acert_zoo.load_model(folder).save_pretrained(tmp_path / "again")
    for name in ("model.safetensors", "config.json", "README.md"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_changed_weights_lose_the_metrics_they_no_longer_have(zoo: Path, tmp_path: Path) -> None:
    model = acert_zoo.load_model("small")
    old = model.weights_sha256
    with torch.no_grad():
        next(model.classifier.parameters()).add_(1.0)
    assert model.weights_sha256 != old
    model.save_pretrained(tmp_path / "tuned")
    tuned = acert_zoo.load_model(tmp_path / "tuned")
    assert tuned.info.metrics == ()
    assert tuned.info.sha256 == tuned.weights_sha256 not in (old, None)
    assert torch.equal(tuned(IMAGES), model(IMAGES))
    assert not model.training


def test_unfolded_batchnorm_can_be_saved_too(tmp_path: Path) -> None:
    from acert_zoo.network import architectures
    from acert_zoo.zoo.model_info import ModelInfo

    kwargs = {**KWARGS, "batchnorm": True}
    classifier = architectures.build("cnn", **kwargs)
    classifier(torch.rand(8, 3, 8, 8))  # moves the running statistics and the counter
    model = AcertModel(classifier, ModelInfo(name="unfolded", arch="cnn", arch_kwargs=kwargs)).eval()
    model.save_pretrained(tmp_path)
    assert torch.equal(acert_zoo.load_model(tmp_path)(IMAGES), model(IMAGES))


def test_an_existing_card_is_kept(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    small_model().save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    model = small_model()
    with pytest.raises(InvalidInputError, match="saving needs the model's record"):
        AcertModel(model.classifier).save_pretrained(tmp_path)
    wrong = dataclasses.replace(model.info, arch_kwargs={**KWARGS, "hidden": 9})
    with pytest.raises(InvalidInputError, match="does not fit its architecture"):
        AcertModel(model.classifier, wrong).save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_bounds_see_the_classifier() -> None:
    model = small_model()
    assert torch.equal(trace(model)(IMAGES), model(IMAGES))


def test_gradients_and_training_still_work(folder: Path) -> None:
    model = acert_zoo.load_model(folder)
    model(IMAGES).sum().backward()
    assert all(p.requires_grad and p.grad is not None for p in model.parameters())


def test_a_name_in_other_letters_is_suggested_and_what_is_no_name_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean cifar10_kappa025"):
        acert_zoo.load_model("CIFAR10-Kappa025")
    for name in (None, 25):
        with pytest.raises(InvalidInputError, match="loaded by name"):
            acert_zoo.load_model(name)


def test_import_is_lazy_and_everything_public_is_there() -> None:
    code = (
        "import sys, acert_zoo; acert_zoo.list_models(); acert_zoo.errors; acert_zoo.ModelInfo\n"
        "heavy = {'torch', 'numpy', 'huggingface_hub', 'PIL', 'torchvision', 'safetensors'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert set(acert_zoo.__all__) <= set(dir(acert_zoo))\n"
        "try: acert_zoo.nothing\n"
        "except AttributeError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "module 'acert_zoo' has no attribute 'nothing'\n"
    for name in acert_zoo.__all__:
        assert getattr(acert_zoo, name) is not None


def test_every_registered_checkpoint_loads_and_classifies_its_samples() -> None:
    for name in acert_zoo.list_models(all_versions=True):
        model = acert_zoo.load_model(name)
        info = model.info
        assert info.versioned_name == name
        assert model.weights_sha256 == info.sha256
        if info.kind == "model":
            assert sum(p.numel() for p in model.parameters()) == info.parameters
        images, labels = acert_zoo.sample_data(info.dataset)
        with torch.no_grad():
            accuracy = 100 * (model(images).argmax(1) == labels).double().mean().item()
        recorded = info.metric("accuracy")
        spread = 100 * (recorded.value / 100 * (1 - recorded.value / 100) / len(labels)) ** 0.5
        assert abs(accuracy - recorded.value) < 5 * spread + 5, name


def test_damaged_configs_give_one_kind_of_error(folder: Path) -> None:
    good = json.loads((folder / "config.json").read_text())
    for key in good:
        for value in (None, -1, "x", [], {}, 1e300, True, [[]], "../../etc/passwd"):
            (folder / "config.json").write_text(json.dumps({**good, key: value}))
            try:
                model = acert_zoo.load_model(folder)
            except AcertZooError:
                continue
            assert torch.equal(model(IMAGES), small_model()(IMAGES)), (key, value)


def test_files_of_gives_what_a_repository_holds(tmp_path: Path) -> None:
    assert set(files_of(small_model(), tmp_path)) == {"README.md", "config.json", "model.safetensors"}
