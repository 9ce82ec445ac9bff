"""torch.hub: entry points made from the registry, working with torch, numpy and safetensors alone, from everywhere.

Also tested here: zoo/hub_entries.py.
"""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

import acert_zoo
from acert_zoo.errors import InvalidInputError, UnknownNameError
from acert_zoo.zoo import hub_entries, registry
from acert_zoo.zoo.model_info import Metric
from tests.support.models import record_of, small_model

ROOT = Path(__file__).resolve().parents[1]
IMAGES = torch.linspace(0, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)
CERTIFIED = {
    "metric": "certified_accuracy",
    "value": 39.519,
    "unit": "%",
    "eps": "2/255",
    "n": 10000,
    "dataset": "cifar10",
    "split": "test",
    "method": "ibp",
    "rounding": "real-sound",
}

# Only the standard library, torch with its own dependencies, numpy and safetensors can be imported.
RESTRICTED = """
import importlib.abc, sys
ALLOWED = {"torch", "torchgen", "functorch", "numpy", "safetensors", "typing_extensions", "sympy", "mpmath", "networkx",
          "jinja2", "markupsafe", "filelock", "fsspec", "setuptools", "triton", "acert_zoo", "hubconf",
           "libtorchsplit"}
class OnlyThese(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in ALLOWED and top not in sys.stdlib_module_names and not top.startswith("_"):
            raise ModuleNotFoundError(f"blocked: {name}", name=name)
sys.meta_path.insert(0, OnlyThese())
import json, torch
for name in ("huggingface_hub", "PIL", "click", "rich"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} should not be importable here")
images = torch.linspace(0, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)
"""


def run(code: str, cwd: Path, *arguments: str | Path) -> dict[str, Any]:
    """Runs `code` in a fresh, restricted process outside the clone; its last line of output is JSON."""
    command = [sys.executable, "-I", "-c", RESTRICTED + code, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's files that torch.hub needs, the registry holding three small models."""
    tree = tmp_path_factory.mktemp("tree")
    ignore = shutil.ignore_patterns("__pycache__", "checkpoints", ".*")
    shutil.copytree(ROOT / "acert_zoo", tree / "acert_zoo", ignore=ignore)
    shutil.copy(ROOT / "hubconf.py", tree)
    path = tree / "acert_zoo" / "zoo.json"
    path.write_text('{"schema_version": 1, "models": []}')
    (tree / "acert_zoo" / "checkpoints").mkdir()
    for seed, (name, kappa) in enumerate((("small_kappa000", 0.0), ("small_kappa025", 0.25), ("small_ibp", None))):
        model, saved = small_model(seed, name), tree / "saved" / name
        model.save_pretrained(saved)
        file = f"checkpoints/{name}.v1.safetensors"
        shutil.copy(saved / "model.safetensors", tree / "acert_zoo" / file)
        changes = {"file": file, "kappa": kappa, "method": "ibp" if kappa is None else "acert"}
        record = record_of(model, saved, **changes)
        registry.add_record(path, {**record, "metrics": [*record["metrics"], CERTIFIED]})
    return tree


@pytest.fixture
def small_zoo(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(registry, "PACKAGE", tree / "acert_zoo")
    monkeypatch.setattr(registry, "REGISTRY_PATH", tree / "acert_zoo" / "zoo.json")
    return tree


def github_zip(tree: Path) -> bytes:
    """The tree as GitHub archives it: one folder REPOSITORY-REF, its entry first."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.mkdir("acert-main")
        for path in sorted(p for p in tree.rglob("*") if p.is_file()):
            archive.write(path, f"acert-main/{path.relative_to(tree).as_posix()}")
    return buffer.getvalue()


def test_local_source_from_another_folder_with_nothing_but_torch_numpy_safetensors(tree: Path, tmp_path: Path) -> None:
    code = """
folder = sys.argv[1]
model = torch.hub.load(folder, "small_kappa025", source="local", trust_repo=True, progress=False)
old = torch.hub.load(folder, "small_kappa025", source="local", version=1)
chosen = torch.hub.load(folder, "acert", source="local", dataset="cifar10", kappa=0.3, nearest=True)
print(json.dumps({
    "logits": model(images).tolist(), "training": model.training, "names": [m.info.name for m in (model, old, chosen)],
    "file": sys.modules["acert_zoo"].__file__,
}))
"""
    result = run(code, tmp_path, tree)
    assert torch.equal(torch.tensor(result["logits"]), small_model(1)(IMAGES))
    assert result["training"] is False
    assert result["names"] == ["small_kappa025"] * 3
    assert result["file"] == str(tree / "acert_zoo" / "__init__.py")


def test_github_archive_layout(tree: Path, tmp_path: Path) -> None:
    """The zip unpacked in torch.hub's cache folder; then force_reload, which fetches and unpacks it again."""
    (tmp_path / "hub").mkdir()
    (tmp_path / "archive.zip").write_bytes(github_zip(tree))
    with zipfile.ZipFile(tmp_path / "archive.zip") as archive:
        archive.extractall(tmp_path / "hub")
    (tmp_path / "hub" / "acert-main").rename(tmp_path / "hub" / "owner_acert_main")
    code = """
from pathlib import Path
torch.hub.set_dir(sys.argv[1] + "/hub")
options = {"skip_validation": True, "trust_repo": True}
names = torch.hub.list("owner/acert:main", **options)
text = torch.hub.help("owner/acert:main", "small_kappa025", **options)
model = torch.hub.load("owner/acert:main", "small_kappa025", progress=False, **options)
marker = Path(sys.argv[1], "hub", "owner_acert_main", "stale")
marker.write_text("")
torch.hub._git_archive_link = lambda owner, name, ref: Path(sys.argv[1], "archive.zip").as_uri()
again = torch.hub.load("owner/acert:main", "small_kappa000", force_reload=True, **options)
print(json.dumps({"names": names, "help": text, "logits": model(images).tolist(), "again": again(images).tolist(),
                  "reloaded": not marker.exists()}))
"""
    result = run(code, tmp_path, tmp_path)
    assert result["names"] == ["acert", "small_ibp", "small_kappa000", "small_kappa025"]
    assert "certified accuracy at 2/255: 39.51 %" in result["help"]
    assert torch.equal(torch.tensor(result["logits"]), small_model(1)(IMAGES))
    assert torch.equal(torch.tensor(result["again"]), small_model(0)(IMAGES))
    assert result["reloaded"]


def test_docstrings_say_what_was_measured(small_zoo: Path) -> None:
    text = hub_entries.entry_points()["small_kappa025"].__doc__
    assert text.startswith("small_kappa025.v1: cifar10 classifier with certified l-inf robustness.\n")
    assert "acert training, kappa 0.25; cnn network of 1,146 parameters." in text
    assert "- natural accuracy: 50.00 % (n = 100, cifar10 test)" in text
    assert "- certified accuracy at 2/255: 39.51 % (n = 10,000, cifar10 test, ibp, real-sound)" in text
    assert "Licence of the weights: Apache-2.0" in text


@pytest.mark.parametrize(
    ("metric", "value", "unit", "line"),
    [
        ("accuracy", 99.999, "%", "natural accuracy: 99.99 %"),
        ("accuracy", 57, "%", "natural accuracy: 57.00 %"),
        ("acr", 0.0102999999, "pixel", "average certified radius (ACR): 0.010299 (pixel units)"),
        ("acr", 1e-9, "pixel", "average certified radius (ACR): 0.000000 (pixel units)"),
    ],
)
def test_numbers_are_never_rounded_up(metric: str, value: float, unit: str, line: str) -> None:
    shown = hub_entries.metric_line(Metric(metric, value, unit, 5, "mnist", "test"))
    assert shown == f"{line} (n = 5, mnist test)"


def test_acert_takes_a_registered_kappa_and_the_nearest_only_when_asked(small_zoo: Path) -> None:
    assert hub_entries.acert("cifar10", 0.25).info.name == "small_kappa025"
    assert hub_entries.acert(dataset="cifar10", kappa=0).info.name == "small_kappa000"
    with pytest.raises(UnknownNameError, match=r"no cifar10 model with kappa 0\.3; known: 0, 0\.25 \(nearest=True"):
        hub_entries.acert("cifar10", 0.3)
    assert hub_entries.acert("cifar10", 0.3, nearest=True).info.name == "small_kappa025"
    assert hub_entries.acert("cifar10", 0.125, nearest=True).info.name == "small_kappa000", "ties go to the more robust"
    with pytest.raises(UnknownNameError, match="known: cifar10"):
        hub_entries.acert("mnist")
    for kappa in (-0.1, float("nan"), "0.25", True):
        with pytest.raises(InvalidInputError, match="a number in"):
            hub_entries.acert("cifar10", kappa, nearest=True)


def test_acert_means_the_models_of_the_largest_eps_max(small_zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = registry.model_info("small_kappa000")
    large, small, unknown = (
        dataclasses.replace(base, name=name, eps_max=eps)
        for name, eps in (("large", "8.8/255"), ("small", "0.034"), ("unknown", None))
    )
    other = dataclasses.replace(small, name="other", dataset="mnist")  # another data set's radius does not matter
    for models in ((small, large, unknown, other), (unknown, large, small, other)):
        monkeypatch.setattr(registry, "_bundled", lambda models=models: models)
        assert [m.name for m in registry.at_largest_radius(models)] == ["large", "other"]
        with pytest.raises(UnknownNameError, match="nearest=True"):
            hub_entries.acert("cifar10", 0.25)
        monkeypatch.setattr(hub_entries, "_load", lambda name, *_: name)
        assert hub_entries.acert("cifar10", 0) == "large"


def test_the_shipped_hubconf_has_an_entry_for_every_checkpoint_and_nothing_else() -> None:
    module = torch.hub._import_module("hubconf", str(ROOT / "hubconf.py"))
    public = {name for name in dir(module) if callable(getattr(module, name)) and not name.startswith("_")}
    assert public == {*acert_zoo.list_models(), "acert"}
    assert set(module.dependencies) == {"torch", "safetensors", "numpy"}
    for name in acert_zoo.list_models():
        entry, info = getattr(module, name), acert_zoo.model_info(name)
        assert entry.__name__ == name
        for expected in ("natural accuracy", "certified accuracy at", "n = ", str(info.license)):
            assert expected in entry.__doc__, (name, expected)


def test_the_committed_archive_has_the_files_of_its_registry() -> None:
    """What GitHub would serve: weights kept out of git, or in git-lfs, would be missing or pointers."""
    git = shutil.which("git")
    archive = git and subprocess.run([git, "archive", "--format=zip", "HEAD"], cwd=ROOT, capture_output=True)
    if not archive or archive.returncode:
        pytest.skip("not a git checkout")
    with zipfile.ZipFile(io.BytesIO(archive.stdout)) as files:
        models = json.loads(files.read("acert_zoo/zoo.json"))["models"]
        assert "hubconf.py" in files.namelist()
        for record in models:
            assert files.getinfo(f"acert_zoo/{record['file']}").file_size == record["size"]
