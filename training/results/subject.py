"""What is evaluated, attacked or decided: a run's deployed model, or a model of the zoo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from acert_zoo.errors import InvalidInputError
from training.run.deployment import deployed_model, read_run, weights_digest


@dataclass(frozen=True)
class Subject:
    """What is evaluated: a run (no version yet) or a registered model."""

    model: nn.Module
    name: str
    version: int | None
    dataset: str
    eps_max: str
    sha256: str


def run_subject(run: Path) -> Subject:
    recipe, state = read_run(run)
    model = deployed_model(recipe, state)
    return Subject(model, run.resolve().name, None, recipe.dataset, recipe.radius.eps_max, weights_digest(model))


def zoo_subject(name: str) -> Subject:
    from acert_zoo.zoo.load import load_model

    model = load_model(name)
    info = model.info
    if info is None or info.dataset is None or info.eps_max is None or info.sha256 is None:
        raise InvalidInputError(f"{name} does not say what it was trained on; name a registered model")
    return Subject(model, info.name, info.version, info.dataset, info.eps_max, info.sha256)
