"""`acert-zoo list` and `show`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli import environment, make_zoo, refused, run


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return make_zoo(tmp_path, monkeypatch)


def test_list_shows_one_line_a_model_with_the_recorded_decimals(zoo: str) -> None:
    header, row = run("list").stdout.splitlines()
    assert header.split()[0] == "model"
    assert row.split() == [zoo, "cifar10", "acert", "0.25", "54.30", "41.10", "at", "2/255", "29.57"]


def test_list_by_data_set(zoo: str) -> None:
    assert zoo in run("list", "--dataset", "cifar10").stdout
    refused("cifar10", "list", "--dataset", "cifar")


def test_list_filters_sorts_and_prints_csv(zoo: str) -> None:
    assert (
        zoo in run("list", "tiny_*", "--where", "accuracy>50", "--sort", "certified@2/255", "--method", "acert").stdout
    )
    assert run("list", "--where", "accuracy>60").stderr == "No models.\n"
    header, row = run("list", "--csv").stdout.splitlines()
    cells = dict(zip(header.split(","), row.split(","), strict=True))
    assert (cells["name"], cells["accuracy"], cells["certified@2/255"]) == (zoo, "54.3", "41.1")
    refused("FIELD OPERATOR VALUE", "list", "--where", "accuracy")
    refused("not both", "list", "--json", "--csv")


def test_list_as_json_is_the_registry(zoo: str) -> None:
    (record,) = json.loads(run("list", "--json").stdout)["models"]
    assert record["name"] == zoo
    assert record["metrics"][0]["value"] == 54.3


def test_show_states_facts_and_metrics_with_n_method_and_rounding(zoo: str) -> None:
    text = run("show", zoo).stdout
    assert text.startswith(f"{zoo}.v1\n")
    for words in ("acert kappa 0.25", "8.8/255", "checkpoints/tiny.safetensors", "Apache-2.0"):
        assert words in text
    (certified,) = [line for line in text.splitlines() if line.startswith("certified_accuracy")]
    assert " ".join(certified.split()) == "certified_accuracy 41.10 % 2/255 1,000 of cifar10 test ibp real-sound"
    assert json.loads(run("show", zoo, "--json").stdout)["version"] == 1


def test_show_suggests_near_names(zoo: str) -> None:
    refused(f"did you mean {zoo}?", "show", "tiny_kapa025")


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["--help"], ["--version"], ["certify", "--help"]])
def test_no_torch_and_no_numpy_is_imported(arguments: list[str]) -> None:
    code = (
        "import sys; from acert_zoo.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "found = {'torch', 'numpy'} & set(sys.modules)\n"
        "assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
