"""Small networks with fixed random weights, in the files that acert_zoo reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from acert_zoo.network import architectures
from acert_zoo.zoo import resolve
from acert_zoo.zoo.model import AcertModel
from acert_zoo.zoo.model_info import ModelInfo

SHAPE = (3, 8, 8)
KWARGS: dict[str, Any] = {
    "input_shape": list(SHAPE),
    "num_classes": 4,
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.3, 0.4],
    "convs": [[4, 2], [6, 1]],
    "hidden": 8,
}


def small_model(seed: int = 0, name: str = "small") -> AcertModel:
    """A network of about 1,000 parameters on 3x8x8 images, 4 classes, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = architectures.build("cnn", **KWARGS)
    info = ModelInfo(name=name, arch="cnn", arch_kwargs=KWARGS, dataset="cifar10", license="Apache-2.0")
    return AcertModel(classifier, info).eval()


def files_of(model: AcertModel, folder: Path) -> dict[str, bytes]:
    """What `save_pretrained` writes, as a Hub repository's content."""
    model.save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def with_config(files: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    """The same files, keys of config.json replaced."""
    config = json.loads(files[resolve.CONFIG_NAME]) | changes
    return files | {resolve.CONFIG_NAME: json.dumps(config).encode()}


def record_of(model: AcertModel, folder: Path, **changes: Any) -> dict[str, Any]:
    """A complete registry record of the model saved in `folder`."""
    config = json.loads((folder / resolve.CONFIG_NAME).read_text())
    del config["format"], config["schema_version"]
    metric = {"metric": "accuracy", "value": 50.0, "unit": "%", "n": 100, "dataset": "cifar10", "split": "test"}
    return config | {"method": "acert", "metrics": [metric], "file": "checkpoints/small.v1.safetensors"} | changes
