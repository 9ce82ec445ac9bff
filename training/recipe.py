"""A recipe: every setting of a run, as one validated dataclass that a small TOML file and `--set` fill in."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acert_zoo.data import parse_float
from acert_zoo.errors import InvalidInputError, UnknownNameError

RECIPES = Path(__file__).with_name("recipes")


@dataclass(frozen=True)
class Optimizer:
    name: str = "adam"  # adam, or sgd with Nesterov momentum
    lr: float = 2e-3
    weight_decay: float = 0.0
    schedule: str = "onecycle"  # onecycle: three-phase, as the paper; linear: warm up, then straight down to 0
    warmup: float = 0.3  # share of all steps with a rising learning rate
    grad_clip: float = 10.0  # global L2 norm
    l1: float = 0.0


@dataclass(frozen=True)
class Radius:
    """The certified-training radius and its schedule (DESIGN: first epoch 0, then a smooth ramp)."""

    eps_max: str = "8.8/255"
    first_epochs: float = 1
    ramp_epochs: float = 8
    evaluations: int = 2  # IBP evaluations a sample may cost per step in the search for its radius
    tolerance: float = 0.05  # relative error of the radius above which a further evaluation is spent

    @property
    def eps_max_value(self) -> float:
        return parse_float(self.eps_max)


@dataclass(frozen=True)
class Regularizers:
    tight: float = 0.5
    relu: float = 0.5
    tolerance: float = 0.5


@dataclass(frozen=True)
class Augmentation:
    flip: bool = False
    crop_padding: int = 0  # random crop after padding by this many edge pixels


@dataclass(frozen=True)
class Recipe:
    dataset: str = "cifar10"
    objective: str = "acert"
    kappa: float = 0.25
    arch: str = "cnn"
    arch_kwargs: dict[str, Any] = field(default_factory=dict)
    epochs: int = 16
    batch_size: int = 128
    seed: int = 0
    label_smoothing: float = 0.0  # of the standard objective
    initialization: str = "ibp"  # ibp: normal(0, sqrt(2 pi) / fan_in); torch: the framework's default
    optimizer: Optimizer = field(default_factory=Optimizer)
    radius: Radius = field(default_factory=Radius)
    regularizers: Regularizers = field(default_factory=Regularizers)
    augmentation: Augmentation = field(default_factory=Augmentation)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        return _build(cls, values, "")


def _build(cls: Any, values: dict[str, Any], prefix: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(cls)}
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            raise UnknownNameError.near("recipe key", prefix + key, [prefix + k for k in fields])
        default = fields[key].default_factory if fields[key].default is dataclasses.MISSING else fields[key].default
        if isinstance(default, type) and dataclasses.is_dataclass(default):
            if not isinstance(value, dict):
                raise InvalidInputError(f"recipe key {prefix + key!r} is a table, got {value!r}")
            arguments[key] = _build(default, value, f"{prefix}{key}.")
            continue
        kind = dict if callable(default) else type(default)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise InvalidInputError(f"recipe key {prefix + key!r} takes a {kind.__name__}, got {value!r}")
        arguments[key] = value
    return cls(**arguments)


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a bundled name ("cifar10") or a TOML file, with "a.b=value" overrides (TOML values) applied."""
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    if not path.exists():
        raise UnknownNameError.near("recipe", name, [p.stem for p in RECIPES.glob("*.toml")])
    values = tomllib.loads(path.read_text())
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise InvalidInputError(f"--set takes key=value, got {override!r}")
        try:
            value = tomllib.loads(f"x = {text}")["x"]
        except tomllib.TOMLDecodeError:
            value = text
        table = values
        *parents, leaf = key.strip().split(".")
        for parent in parents:
            table = table.setdefault(parent, {})
        table[leaf] = value
    return Recipe.from_dict(values)
