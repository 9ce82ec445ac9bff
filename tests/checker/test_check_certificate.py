"""The independent checker: lines of every kind hold, altered ones do not, and it imports nothing of ours."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import acert_zoo
from acert_zoo.bounds.rigorous_crown import RigorousCrown
from acert_zoo.network.tracing import trace
from tests.support.models import SHAPE, small_model

AFFINE = (1, 2, 4, 7)  # Normalize, convolution, convolution, linear: the values that the checker has boxes of
FILE = Path(__file__).parents[2] / "checker" / "check_certificate.py"


@pytest.fixture(scope="module")
def checker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_certificate", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, three images, and files with lines of every kind about them."""
    folder = tmp_path_factory.mktemp("checker")
    small_model(1).save_pretrained(folder)
    model = acert_zoo.load_model(folder)
    drawn = torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(0))
    images = drawn[[0, 3]]
    np.save(folder / "images.npy", images.numpy())
    acert_zoo.certify(model, images, out=folder / "ibp.jsonl")
    acert_zoo.decide(model, images, None, eps="1/14", budget=200, out=folder / "split.jsonl")
    acert_zoo.decide(model, images[:1], None, eps="1/40", budget=200, out=folder / "crown.jsonl")
    acert_zoo.decide(model, images[:1], None, eps="1/100", budget=200, out=folder / "crown-ibp.jsonl")
    return folder


def network_of(checker: ModuleType, folder: Path) -> Any:
    convs = json.loads((folder / "config.json").read_text())["arch_kwargs"]["convs"]
    return checker.Network((folder / "model.safetensors").read_bytes(), convs)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def check(checker: ModuleType, folder: Path, name: str, number: int, **changes: Any) -> str:
    """What the checker says of a line, perhaps altered; "eps" alters the header."""
    header, *lines = rows(folder / name)
    if "eps" in changes:
        header["eps"] = changes.pop("eps")
    image = np.load(folder / "images.npy")[number]
    return checker.check_line(network_of(checker, folder), image, lines[number] | changes, header, folder / name)


def test_it_is_one_file_that_imports_neither_torch_nor_the_package() -> None:
    text = FILE.read_text()
    assert text.count("\n") <= 400
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"numpy"}


def test_lines_of_every_kind_hold(checker: ModuleType, folder: Path) -> None:
    assert check(checker, folder, "ibp.jsonl", 0).startswith("proved")
    assert check(checker, folder, "crown.jsonl", 0).startswith("proved")
    assert check(checker, folder, "crown-ibp.jsonl", 0).startswith("proved")
    assert check(checker, folder, "split.jsonl", 0) == "refuted"
    assert check(checker, folder, "split.jsonl", 1).startswith("proved")
    assert rows(folder / "crown.jsonl")[1]["method"] == "crown"
    assert rows(folder / "crown-ibp.jsonl")[1]["method"] == "crown-ibp"
    assert rows(folder / "split.jsonl")[2]["method"] == "branch-and-bound"


def test_the_command_line(checker: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    names = ["--weights", "model.safetensors", "--config", "config.json", "--images", "images.npy"]
    options = [str(folder / name) if not name.startswith("--") else name for name in names]
    monkeypatch.setattr(sys, "argv", ["check", str(folder / "crown.jsonl"), *options])
    assert checker.main() == 0
    assert capsys.readouterr().out.startswith("0: proved, margin 0.0")


class TestTampering:
    def test_a_larger_radius(self, checker: ModuleType, folder: Path) -> None:
        radius = float(rows(folder / "ibp.jsonl")[1]["radius"])
        with pytest.raises(checker.Refused, match="not proved"):
            check(checker, folder, "ibp.jsonl", 0, radius=repr(radius * 1.01))

    def test_a_larger_eps(self, checker: ModuleType, folder: Path) -> None:
        with pytest.raises(checker.Refused, match="not proved"):
            check(checker, folder, "split.jsonl", 1, eps="1/9")

    def test_another_label(self, checker: ModuleType, folder: Path) -> None:
        label = (rows(folder / "split.jsonl")[2]["label"] + 1) % 4
        with pytest.raises(checker.Refused, match="not proved"):
            check(checker, folder, "split.jsonl", 1, label=label)

    def test_an_adversarial_image_out_of_reach(self, checker: ModuleType, folder: Path) -> None:
        with pytest.raises(checker.Refused, match="not within eps"):
            check(checker, folder, "split.jsonl", 0, eps="1/1000")

    def test_trees_that_leave_cases_out(self, checker: ModuleType) -> None:
        assert checker.tree_leaves([3, -1, -1], 5) == [[(3, 1)], [(3, -1)]]
        for tree in ([3, -1], [-1, -1], [5, -1, -1], [-2], []):
            with pytest.raises(checker.Refused):
                checker.tree_leaves(tree, 5)


def test_it_agrees_with_the_float64_bounds(checker: ModuleType, folder: Path) -> None:
    """Two programs, one mathematics: exact integers here, outward-rounded float64 there."""
    image = np.load(folder / "images.npy")[1]
    eps = Fraction(1, 64)
    network = trace(acert_zoo.load_model(folder)).detach()
    label = int(network(torch.from_numpy(image)[None]).argmax())
    for method, refine in (("crown-ibp", False), ("crown", True)):
        theirs = RigorousCrown(network, refine=refine)
        boxes = theirs.boxes(torch.from_numpy(image)[None], float(eps))
        ours = network_of(checker, folder).boxes(image, eps, refine)
        for (low, high), box in zip(ours, (boxes[i] for i in AFFINE), strict=True):
            np.testing.assert_allclose(low.astype(float) / 2**64, box.lower[0].numpy(), rtol=1e-6, atol=1e-9)
            np.testing.assert_allclose(high.astype(float) / 2**64, box.upper[0].numpy(), rtol=1e-6, atol=1e-9)
        margin = checker.smallest_margin(network_of(checker, folder), image, label, eps, method)
        bound = theirs.margins(torch.from_numpy(image)[None], torch.tensor([label]), float(eps)).item()
        assert float(margin) <= bound + 1e-9
        assert float(margin) == pytest.approx(bound, rel=1e-6, abs=1e-8) or bound > float(margin)
