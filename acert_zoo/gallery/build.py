"""Builds the gallery: a static site that any web server can offer, from the registry, evaluations and sample images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acert_zoo._files import write_atomically
from acert_zoo._version import __version__
from acert_zoo.data.samples import FOLDER as SAMPLES
from acert_zoo.errors import InvalidInputError, UnknownNameError
from acert_zoo.gallery.bundle import build_bundle
from acert_zoo.gallery.evaluations import StoredEvaluation, read_evaluation
from acert_zoo.gallery.image_wall import certify_samples, wall_document
from acert_zoo.gallery.pages import Pages
from acert_zoo.gallery.tradeoff import tradeoff_document
from acert_zoo.zoo.model_info import ModelInfo
from acert_zoo.zoo.registry import REGISTRY_PATH, read_registry

CHECKOUT = Path(__file__).resolve().parents[2]
MARK = "data/site.json"  # tells a folder that we built from one that holds something else
Report = Callable[[str], None]


@dataclass(frozen=True)
class Subject:
    """One model of the site: its newest record, all its versions, its stored evaluation."""

    info: ModelInfo
    versions: list[ModelInfo]
    stored: StoredEvaluation


def build_site(
    dest: Path,
    *,
    checkout: Path = CHECKOUT,
    names: Sequence[str] | None = None,
    bundle: Path | None = None,
    report: Report = lambda text: None,
) -> list[Path]:
    """Writes the site into the folder `dest`; a second build there keeps the certificates that still hold.

    Args:
        dest: the folder; made where it does not exist.
        checkout: a clone of the repository, with evaluations/ and site/.
        names: only these models; by default the newest version of every registered one.
        bundle: scripts that were bundled before, in place of bundling them now.
        report: called with a line of text as the work goes on.

    Returns:
        the pages.

    Raises:
        InvalidInputError: `dest` holds something else, an evaluation is missing, or no checkout is there.
        UnknownNameError: one of `names` is not registered.
        MissingDependencyError: Jinja2, onnx or Node.js is not installed.
    """
    if not (checkout / "evaluations").is_dir():
        raise InvalidInputError(f"{checkout} is not a clone of the repository: it has no folder evaluations")
    if dest.exists() and (not dest.is_dir() or (any(dest.iterdir()) and not (dest / MARK).is_file())):
        raise InvalidInputError(f"{dest} exists and is no built gallery; name a new folder")
    subjects = _subjects(checkout / "evaluations", names)
    tradeoff = tradeoff_document([(s.info, s.stored) for s in subjects])
    pages = Pages(tradeoff)  # before anything is written: it needs Jinja2
    _remove_former(dest, {s.info.name for s in subjects})
    _write_json(dest / MARK, {"schema_version": 1, "package_version": __version__})
    if bundle is None:
        report("bundling scripts")
        build_bundle(checkout / "site", dest / "assets")
    else:
        shutil.copytree(bundle, dest / "assets", dirs_exist_ok=True)
    _write_json(dest / "data" / "tradeoff.json", tradeoff)
    for dataset in tradeoff["datasets"]:
        _copy(SAMPLES / f"{dataset['name']}.png", dest / "data" / "images" / f"{dataset['name']}.png")
    provable = [fact for s in subjects for fact in _model_files(s, dest, report)]
    written = {
        "index.html": pages.index(),
        "wall.html": pages.wall(),
        "prove.html": pages.prove(provable),
        "compare.html": pages.compare(),
    }
    proved = {fact["name"] for fact in provable}
    for s in subjects:
        written[f"models/{s.info.name}.html"] = pages.model(s.info, s.versions, s.stored, s.info.name in proved)
    for name, text in written.items():
        _write(dest / name, text.encode())
    return [dest / name for name in written]


def _subjects(evaluations: Path, names: Sequence[str] | None) -> list[Subject]:
    versions: dict[str, list[ModelInfo]] = {}
    for info in read_registry(REGISTRY_PATH):
        if info.dataset is not None:
            versions.setdefault(info.name, []).append(info)
    for name in names or ():
        if name not in versions:
            raise UnknownNameError.near("model", name, versions)
    chosen = [v for name, v in versions.items() if names is None or name in names]
    return [Subject(v[-1], v[::-1], read_evaluation(evaluations, v[-1])) for v in chosen]


def _model_files(subject: Subject, dest: Path, report: Report) -> list[dict[str, Any]]:
    """Certificates of the bundled images, the wall's document, and the bounds as ONNX; what the proof page lists."""
    from acert_zoo.bounds.onnx_bounds import export_onnx_bounds
    from acert_zoo.zoo.load import load_model

    info = subject.info
    report(f"{info.versioned_name}: certificates of the bundled images")
    model = load_model(info.versioned_name)
    certificates = dest / "data" / "certificates" / f"{info.name}.jsonl"
    certificates.parent.mkdir(parents=True, exist_ok=True)
    if certificates.exists() and f'"{info.sha256}"' not in certificates.open(encoding="utf-8").readline():
        certificates.unlink()  # of an older version
    certify_samples(model, info, certificates)
    _write_json(dest / "data" / "walls" / f"{info.name}.json", wall_document(model, info, certificates))
    if info.kind != "model":
        return []
    bounds = dest / "data" / "bounds" / f"{info.name}.onnx"
    bounds.parent.mkdir(parents=True, exist_ok=True)
    export_onnx_bounds(model, bounds)
    shape = list(model.input_shape or ())
    return [{"name": info.name, "dataset": info.dataset, "input_shape": shape, "bytes": bounds.stat().st_size}]


def _remove_former(dest: Path, names: set[str]) -> None:
    """Removes scripts of an earlier build, and the files of models that this one does not show."""
    shutil.rmtree(dest / "assets", ignore_errors=True)
    for folder in ("models", "data/walls", "data/bounds", "data/certificates"):
        for path in (dest / folder).glob("*"):
            if path.name.lstrip(".").split(".")[0] not in names:
                path.unlink()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)


def _write_json(path: Path, document: Any) -> None:
    _write(path, (json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n").encode())


def _copy(source: Path, target: Path) -> None:
    _write(target, source.read_bytes())
