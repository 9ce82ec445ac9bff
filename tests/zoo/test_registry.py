"""The registry: records are checked, names are immutable, writing is atomic, and the shipped file is right."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acert_zoo.data.registration import dataset_names
from acert_zoo.errors import InvalidInputError, UnknownNameError
from acert_zoo.zoo import registry
from acert_zoo.zoo.model_info import METRICS, Metric, ModelInfo

METRIC = {"metric": "accuracy", "value": 55.5, "unit": "%", "n": 10000, "dataset": "cifar10", "split": "test"}
RECORD: dict[str, Any] = {
    "name": "cifar10_kappa025",
    "version": 1,
    "kind": "model",
    "arch": "cnn",
    "arch_kwargs": {"hidden": 8},
    "dataset": "cifar10",
    "method": "acert",
    "kappa": 0.25,
    "eps_max": "8.8/255",
    "file": "checkpoints/cifar10_kappa025.v1.safetensors",
    "sha256": "a" * 64,
    "size": 100,
    "parameters": 20,
    "expected_logits": {"images": 1, "logits": [[1.0, 2.0]]},
    "metrics": [METRIC, {**METRIC, "metric": "certified_accuracy", "value": 39.5, "eps": "2/255", "method": "ibp"}],
    "recipe": {"epochs": 16},
    "training": {"seconds": 100.0},
    "license": "Apache-2.0",
    "hub": None,
}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty registry that list_models and model_info read."""
    path = tmp_path / "zoo.json"
    path.write_text('{"schema_version": 1, "models": []}')
    monkeypatch.setattr(registry, "REGISTRY_PATH", path)
    return path


def test_an_empty_registry_lists_nothing(path: Path) -> None:
    assert registry.list_models() == []
    with pytest.raises(UnknownNameError, match="unknown model 'cifar10'"):
        registry.model_info("cifar10")


def test_a_record_comes_back_as_it_was_added(path: Path) -> None:
    info = registry.add_record(path, RECORD)
    assert registry.list_models() == ["cifar10_kappa025"]
    assert registry.model_info("cifar10_kappa025") == registry.model_info("cifar10_kappa025.v1") == info
    assert info.to_dict() == ModelInfo.from_dict(RECORD).to_dict()
    assert json.loads(json.dumps(info.to_dict())) == info.to_dict()
    assert {k: info.to_dict()[k] for k in RECORD if k != "metrics"} == {
        k: v for k, v in RECORD.items() if k != "metrics"
    }
    assert info.versioned_name == "cifar10_kappa025.v1"
    assert info.metric("accuracy").value == 55.5  # type: ignore[union-attr]
    assert info.metric("certified_accuracy", "2/255").n == 10000  # type: ignore[union-attr]
    assert info.metric("certified_accuracy", "8/255") is None


def test_the_newest_version_has_the_plain_name(path: Path) -> None:
    for version in (2, 10, 1):
        registry.add_record(path, {**RECORD, "version": version, "sha256": f"{version:064x}"})
    assert registry.list_models() == ["cifar10_kappa025"]
    assert registry.list_models(all_versions=True) == [f"cifar10_kappa025.v{v}" for v in (1, 2, 10)]
    assert registry.model_info("cifar10_kappa025").version == 10
    assert registry.model_info("cifar10_kappa025.v2").version == 2
    with pytest.raises(UnknownNameError, match=r"did you mean .*cifar10_kappa025\.v1"):
        registry.model_info("cifar10_kappa025.v3")


def test_names_are_immutable(path: Path) -> None:
    registry.add_record(path, RECORD)
    before = path.read_bytes()
    with pytest.raises(InvalidInputError, match=r"exists with other weights .* names are immutable.* version 2"):
        registry.add_record(path, {**RECORD, "sha256": "b" * 64})
    assert path.read_bytes() == before


def test_the_same_weights_may_be_measured_again_and_keep_their_place_on_the_hub(path: Path) -> None:
    registry.add_record(path, RECORD)
    published = registry.set_hub(path, "cifar10_kappa025", "owner/repo", "0" * 40)
    again = registry.add_record(path, {**RECORD, "metrics": [METRIC]})
    assert len(again.metrics) == 1
    assert again.hub == published.hub
    assert registry.find_by_sha256("a" * 64) == again
    assert registry.find_by_sha256("b" * 64) is None


def test_near_names_and_data_sets(path: Path) -> None:
    registry.add_record(path, RECORD)
    with pytest.raises(UnknownNameError, match="did you mean cifar10_kappa025"):
        registry.model_info("cifar_kappa025")
    assert registry.list_models(dataset="cifar10") == ["cifar10_kappa025"]
    with pytest.raises(UnknownNameError, match="cifar10"):
        registry.list_models(dataset="cifar100")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Cifar"}, "model name"),
        ({"name": "../../etc/passwd"}, "model name"),
        ({"version": 0}, "version"),
        ({"version": True}, "version"),
        ({"kind": "modle"}, "did you mean model"),
        ({"sha256": "a" * 63}, "sha256"),
        ({"sha256": "A" * 64}, "sha256"),
        ({"size": -1}, "size"),
        ({"file": "/etc/passwd"}, "plain relative path"),
        ({"file": "checkpoints/../../secret"}, "plain relative path"),
        ({"file": "checkpoints\\x"}, "plain relative path"),
        ({"arch_kwargs": [1]}, "arch_kwargs"),
        ({"dataset": ["cifar10"]}, "dataset is .*; expected a string"),
        ({"license": 2}, "license is 2; expected a string"),
        ({"kappa": float("nan")}, "kappa is nan"),
        ({"kappa": 1.5}, "kappa is 1.5"),
        ({"parameters": "many"}, "parameters is 'many'"),
        ({"recipe": None}, "recipe is None; expected an object"),
        ({"expected_logits": [1]}, "expected_logits is .*; expected an object"),
        ({"metrics": [{**METRIC, "split": 1}]}, "split of metric .* is 1; expected a string"),
        ({"metrics": [{**METRIC, "metric": "acurracy"}]}, "did you mean accuracy"),
        ({"metrics": [{**METRIC, "value": 101}]}, "value of metric .* is 101"),
        ({"metrics": [{**METRIC, "value": float("nan")}]}, "value of metric .* is nan"),
        ({"metrics": [{**METRIC, "n": 0}]}, "n of metric .* is 0"),
        ({"metrics": [{**METRIC, "metric": "certified_accuracy"}]}, "certified accuracies need an eps"),
        ({"metrics": [{"metric": "accuracy"}]}, "needs the keys value, unit, n, dataset, split"),
        ({"metrics": 3}, "metrics is 3; expected a list"),
        ({"metrics": []}, "the registry also needs metrics"),
        ({"license": None}, "the registry also needs license"),
        ({"expected_logits": None}, "the registry also needs expected_logits"),
        ({"hub": {"repo_id": "owner", "revision": "0" * 40}}, "expected owner/name"),
        ({"hub": {"repo_id": "owner/repo", "revision": "main"}}, "commit id"),
        ({"colour": "red"}, "unknown key of a ModelInfo 'colour'"),
    ],
)
def test_records_that_are_not_valid_change_nothing(path: Path, changes: dict[str, Any], message: str) -> None:
    before = path.read_bytes()
    with pytest.raises((InvalidInputError, UnknownNameError), match=message):
        registry.add_record(path, {**RECORD, **changes})
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"schema_version": 1}',
        '{"schema_version": 2, "models": []}',
        '{"schema_version": 1, "models": [3]}',
    ],
)
def test_files_that_are_no_registry(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(InvalidInputError):
        registry.list_models()


def test_a_name_that_stands_twice_is_an_error(path: Path) -> None:
    path.write_text(json.dumps({"schema_version": 1, "models": [RECORD, RECORD]}))
    with pytest.raises(InvalidInputError, match=r"cifar10_kappa025\.v1 twice"):
        registry.list_models()


def test_processes_that_add_at_once_lose_nothing(path: Path) -> None:
    code = (
        "import json, sys; from acert_zoo.zoo import registry; record = json.loads(sys.argv[2])\n"
        "for version in range(int(sys.argv[3]), 40, 4):\n"
        "    registry.add_record(sys.argv[1], {**record, 'version': version + 1, 'sha256': f'{version:064x}'})"
    )
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code, str(path), json.dumps(RECORD)]
    running = [subprocess.Popen([*command, str(start)], cwd=root) for start in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    assert len(registry.read_registry(path)) == 40
    assert {p.name for p in path.parent.iterdir()} == {"zoo.json", ".zoo.json.lock"}


@given(
    st.lists(
        st.builds(
            Metric,
            metric=st.sampled_from([m for m in METRICS if m != "certified_accuracy"]),
            value=st.floats(0, 100),
            unit=st.sampled_from(["%", "pixel"]),
            n=st.integers(1, 10**6),
            dataset=st.text(max_size=5),
            split=st.just("test"),
        ),
        min_size=1,
        max_size=3,
    ),
    st.dictionaries(
        st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5) | st.floats(-1, 1), max_size=3
    ),
)
def test_any_record_survives_the_file(metrics: list[Metric], recipe: dict[str, Any]) -> None:
    info = ModelInfo.from_dict({**RECORD, "metrics": metrics, "recipe": recipe})
    assert registry._parse(registry._format([info])) == (info,)


def test_the_shipped_registry_is_complete_and_its_files_are_there() -> None:
    """Records are data: this test, not the program, checks them against the bundled files."""
    models = registry.read_registry(registry.PACKAGE / "zoo.json")
    for info in models:
        path = registry.PACKAGE / str(info.file)
        content = path.read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (info.size, info.sha256), info.versioned_name
        assert len(content) <= 7_000_000
        assert info.license
        assert info.metrics
        assert info.dataset in dataset_names()
    files = {p.name for p in (registry.PACKAGE / "checkpoints").glob("[!.]*")}
    assert files == {Path(str(m.file)).name for m in models}
