"""The package as it is shipped: what the wheel holds, that builds repeat, and that it works away from the clone.

Also tested here: _version.py.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import acert_zoo
from acert_zoo._version import SOURCE
from acert_zoo.certificates.verify import verify_file
from acert_zoo.data.registration import dataset_names

ROOT = Path(__file__).resolve().parents[1]
MEGABYTE = 1_000_000


def run(*command: str | Path, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def build(source: Path, target: str, out: Path) -> Path:
    """One artefact, without build isolation, so that nothing is fetched."""
    run(sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", out, cwd=source)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))


def shipped_data() -> set[str]:
    """Registry, weights, sample images and registrations of data sets, relative to the repository."""
    registry = json.loads((ROOT / "acert_zoo" / "zoo.json").read_text())
    weights = {f"acert_zoo/{record['file']}" for record in registry["models"] if record["file"]}
    samples = {
        p.relative_to(ROOT).as_posix() for p in (ROOT / "acert_zoo" / "data" / "sample_images").iterdir() if p.is_file()
    }
    data_sets = {f"acert_zoo/data/registered/{name}.toml" for name in dataset_names()}
    return {"acert_zoo/zoo.json", "acert_zoo/py.typed", *weights, *samples, *data_sets}


def test_the_wheel_holds_weights_samples_and_nothing_but_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert shipped_data() <= names
    assert {n.split("/")[0] for n in names} == {"acert_zoo", f"acert_zoo-{acert_zoo.__version__}.dist-info"}
    assert f"acert_zoo-{acert_zoo.__version__}.dist-info/licenses/LICENSE" in names
    assert not [n for n in names if n.endswith((".pt", ".pyc", ".part"))]


def test_the_wheel_is_small_enough(wheel: Path) -> None:
    assert wheel.stat().st_size < 90 * MEGABYTE


def test_two_builds_are_identical(wheel: Path, tmp_path: Path) -> None:
    assert build(ROOT, "wheel", tmp_path).read_bytes() == wheel.read_bytes()


def test_the_sdist_holds_the_project_and_builds_the_same_wheel(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    names = {p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()}
    assert shipped_data() | {"README.md", "LICENSE", "Makefile", "pyproject.toml", "training/train.py"} <= names
    assert not [n for n in names if n.startswith(("runs/", ".venv/", "dist/"))]
    out = tmp_path / "out"
    assert build(source, "wheel", out).read_bytes() == wheel.read_bytes()


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel alone in a folder; its dependencies come from this environment."""
    target = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel)
    run(*pip, cwd=target)
    return target


def test_installed_away_from_the_clone_it_certifies_the_bundled_images(installed: Path, tmp_path: Path) -> None:
    """Another process may sum in another order: radii agree to what the search resolves, and each is proved."""
    name, saved = "cifar10_kappa025", tmp_path / "saved.jsonl"
    code = (
        f"import sys; sys.path.insert(0, {str(installed)!r}); import acert_zoo; "
        f"assert acert_zoo.__file__.startswith({str(installed)!r}), acert_zoo.__file__; "
        "images, labels = acert_zoo.sample_data('cifar10', 20); "
        f"model = acert_zoo.load_model({name!r}); "
        "result = acert_zoo.certify(model, images, labels, dataset='cifar10', split='samples'); "
        f"result.save({str(saved)!r})"
    )
    run(sys.executable, "-P", "-c", code, cwd=tmp_path)
    there = acert_zoo.Certificates.load(saved)
    here = acert_zoo.certify(acert_zoo.load_model(name), *acert_zoo.sample_data("cifar10", 20))
    assert there.radius.tolist() == pytest.approx(here.radius.tolist(), rel=1e-5, abs=0)
    assert there.certified("2/255").sum() > 3
    report = verify_file(saved)
    assert report.ok
    assert report.counts["proved"] == int((there.radius > 0).sum())


def test_dependencies_have_floors_and_no_ceilings() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [
        *project["dependencies"],
        *(r for extra in project["optional-dependencies"].values() for r in extra),
    ]
    assert requirements
    parsed = [Requirement(r) for r in requirements]
    assert {s.operator for r in parsed for s in r.specifier} == {">="}
    assert not [r for r in parsed if r.url]


def test_no_installed_package_misses_what_it_requires_but_auto_lirpa() -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stdout.splitlines() if line and not line.lower().startswith("auto-lirpa")]
    assert complaints in ([], ["No broken requirements found."])


def test_the_installed_metadata_states_version_and_licence() -> None:
    try:
        metadata = distribution("acert-zoo").metadata
    except PackageNotFoundError:
        pytest.skip("acert-zoo is not installed in this environment")
    assert metadata["Version"] == acert_zoo.__version__
    assert metadata["License-Expression"] == "Apache-2.0"


def test_citation_names_this_version_and_the_paper() -> None:
    text = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {acert_zoo.__version__}\n" in text
    assert "arXiv:2307.13078" in text
    assert "10.1007/978-3-031-70371-3_8" in text


def test_changelog_begins_with_this_version() -> None:
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert headings[0].startswith(f"## {acert_zoo.__version__}")


def test_pages_name_a_source_that_pip_can_install() -> None:
    """Nothing is on PyPI yet: README, docs and cards name what pip takes until then."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "model_cards").glob("*.md"))]
    text = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in pages}
    assert [
        name for name, content in text.items() if re.search(r"pip install ['\"]?acert-zoo(\[\w+\])?['\"`]", content)
    ] == []
    assert f"pip install {SOURCE}\n" in text["README.md"].replace("  # or", "\n")
    assert f"`pip install {SOURCE}`" in text["model_cards/mnist_kappa000.md"]
