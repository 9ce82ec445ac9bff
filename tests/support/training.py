"""A tiny network and data set for the tests of training: seconds, not minutes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from acert_zoo.network import architectures
from acert_zoo.network.graph import Network
from acert_zoo.network.tracing import trace
from training.method.loss import Batch
from training.recipes.recipe import Recipe
from training.results.evaluation import Evaluation

VALIDATION = 5000  # what data.load_split holds out


def write_dataset(root: Path, n: int = 160, seed: int = 0) -> Path:
    """A data root with a learnable "mnist": `n` training images beside the validation split, and no test files."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, n + VALIDATION)
    prototypes = rng.integers(0, 256, (10, 28, 28, 1))
    images = (0.7 * prototypes[labels] + 0.3 * rng.integers(0, 256, (len(labels), 28, 28, 1))).astype(np.uint8)
    (root / "mnist").mkdir(parents=True)
    np.save(root / "mnist" / "train_images.npy", images)
    np.save(root / "mnist" / "train_labels.npy", labels.astype(np.int64))
    return root


RECIPE_TOML = """
dataset = "mnist"
epochs = 3
batch_size = 40
validation_images = 60
[arch_kwargs]
convs = [[4, 2], [4, 2]]
hidden = 16
[radius]
eps_max = "0.1"
first_epochs = 1
ramp_epochs = 1.5
[augmentation]
flip = true
crop_padding = 2
"""


def tiny_recipe(**changes: Any) -> Recipe:
    """The recipe of RECIPE_TOML; nested tables are merged."""
    import tomllib

    values = tomllib.loads(RECIPE_TOML)
    for key, value in changes.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    return Recipe.from_dict(values)


def tiny_model(seed: int = 0, dtype: torch.dtype = torch.float64, k: int = 4) -> nn.Module:
    """Two convolutions with BatchNorm on 2x6x6 images, `k` classes."""
    torch.manual_seed(seed)
    model = architectures.build(
        "cnn",
        input_shape=(2, 6, 6),
        num_classes=k,
        mean=(0.4, 0.5),
        std=(0.3, 0.2),
        convs=[[3, 2], [4, 1]],
        hidden=5,
        batchnorm=True,
    )
    with torch.no_grad():  # BatchNorm away from its start, where scale 1 and shift 0 hide errors
        for p in model.parameters():
            if p.dim() == 1:
                p.add_(0.3 * torch.randn_like(p))
    return model.to(dtype)


def tiny_batch(
    network: Network | None = None, *, n: int = 6, eps_t: float = 0.02, recipe: Recipe | None = None, **changes: Any
) -> Batch:
    """A batch of random images for `tiny_model`, in its dtype, in the middle of the ramp."""
    network = network or trace(tiny_model())
    dtype = network.head.weight.dtype
    g = torch.Generator().manual_seed(5)
    images: Tensor = torch.rand(n, 2, 6, 6, generator=g, dtype=torch.float64).to(dtype)
    images[0, 0, 0, :3] = 0.0  # clipped sides of the box
    images[1, 1, 0, :3] = 1.0
    values: dict[str, Any] = {
        "network": network,
        "images": images,
        "labels": network(images).argmax(1).roll(1),
        "eps_t": eps_t,
        "before_ramp": False,
        "ramping": True,
        "scale": torch.full((n,), torch.nan, dtype=dtype),
        "recipe": recipe or tiny_recipe(kappa=0.25),
        "noise": lambda: torch.rand(images.shape, generator=torch.Generator().manual_seed(7), dtype=images.dtype),
    }
    return Batch(**(values | changes))


TRAIN = Path(__file__).resolve().parents[2] / "training" / "train.py"


def write_recipe(path: Path, **changes: Any) -> Path:
    """The recipe of RECIPE_TOML as a file; `changes` replace top-level values."""
    lines = [line for line in RECIPE_TOML.strip().splitlines() if line.split(" =")[0] not in changes]
    path.write_text("\n".join([*(f"{k} = {v!r}" for k, v in changes.items()), *lines]) + "\n")
    return path


def one_thread() -> dict[str, str]:
    """The environment of a training process whose result is the same bit for bit each time."""
    return {k: v for k, v in os.environ.items() if k != "ACERT_ZOO_DATA"} | {"OMP_NUM_THREADS": "1"}


def run_train(*arguments: object, launcher: Sequence[str] = (), **options: Any) -> subprocess.CompletedProcess[str]:
    """`python training/train.py` with `arguments` (under `launcher`, such as torchrun's) in a process of its own."""
    command = [sys.executable, *launcher, str(TRAIN), *map(str, arguments)]
    values: dict[str, Any] = {"env": one_thread(), "capture_output": True, "text": True, "timeout": 300, "check": False}
    return subprocess.run(command, **(values | options))


def final_weights(run: Path) -> dict[str, Tensor]:
    """The weights of a run's last state."""
    return torch.load(run / "last.pt", weights_only=True)["model"]


def same_weights(a: Path, b: Path) -> bool:
    """Whether the last states of two runs have the same weights, bit for bit."""
    first, second = final_weights(a), final_weights(b)
    return first.keys() == second.keys() and all(torch.equal(v, second[k]) for k, v in first.items())


def evaluation(radius: Sequence[float], correct: Sequence[bool], **changes: Any) -> Evaluation:
    """The evaluation of a model named "it" on as many test images."""
    values = {
        "name": "it",
        "version": 1,
        "weights_sha256": "a" * 64,
        "dataset": "cifar10",
        "split": "test",
        "eps_max": "8.8/255",
        "total": len(radius),
        **changes,
    }
    return Evaluation(radius=np.array(radius, dtype=np.float64), correct=np.array(correct), **values)
