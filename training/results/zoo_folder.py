"""Where the zoo's files lie in a checkout, and how they are written: whole or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acert_zoo._files import write_atomically

SCHEMA_VERSION = 1  # of evaluations, attacks and decided images
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class ZooFolder:
    """A checkout of this repository, or a folder laid out like one (for trials)."""

    root: Path = REPOSITORY

    @property
    def package(self) -> Path:
        return self.root / "acert_zoo"

    @property
    def registry(self) -> Path:
        return self.package / "zoo.json"

    @property
    def registrations(self) -> Path:
        """The data sets that the zoo knows, one TOML file each."""
        return self.package / "data" / "registered"

    @property
    def cards(self) -> Path:
        return self.root / "model_cards"

    @property
    def figures(self) -> Path:
        return self.root / "docs" / "figures"

    def checkpoint(self, name: str, version: int) -> Path:
        return self.package / "checkpoints" / f"{name}.v{version}.safetensors"

    def evaluation(self, name: str, version: int) -> Path:
        """The numbers of the record and card: everything that was measured on the test set."""
        return self.root / "evaluations" / f"{name}.v{version}.json"

    def radii(self, name: str, version: int) -> Path:
        """float64 certified radii of the test images in their order (of the first 1,000 in older evaluations)."""
        return self.root / "evaluations" / f"{name}.v{version}.radii.npy"

    def decided(self, name: str, version: int) -> Path:
        """How many test images are proved robust, refuted or undecided (training/results/decide.py)."""
        return self.root / "evaluations" / f"{name}.v{version}.decided.json"

    def seeds(self, name: str, version: int) -> Path:
        """Figures of the same recipe with other seeds (training/results/seeds.py)."""
        return self.root / "evaluations" / f"{name}.v{version}.seeds.json"

    def attack(self, name: str, version: int) -> Path:
        """How test images were attacked, and the accuracy that was left."""
        return self.root / "evaluations" / f"{name}.v{version}.attack.json"

    def attacked_radii(self, name: str, version: int) -> Path:
        """float64 distances of the adversarial images that were found, in the order of the test images; inf: none."""
        return self.root / "evaluations" / f"{name}.v{version}.attacked.npy"


def write_atomic(path: Path, content: bytes | str) -> bool:
    """Writes `content` whole or not at all; False (and nothing touched) where the file holds just that already."""
    data = content.encode() if isinstance(content, str) else content
    if path.is_file() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data)
    return True


def document_head(
    name: str, version: int | None, weights_sha256: str, dataset: str, split: str = "test"
) -> dict[str, Any]:
    """How every document of results begins: of which weights on which images it speaks."""
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "version": version,
        "weights_sha256": weights_sha256,
        "dataset": dataset,
        "split": split,
    }


def read_document(path: Path, weights_sha256: str | None) -> dict[str, Any] | None:
    """A document of results; None where there is none, or it speaks of other weights."""
    if not path.is_file():
        return None
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document if document["weights_sha256"] == weights_sha256 else None


def dump_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
