"""A recipe: every setting of a run, as one validated dataclass that a small TOML file and `--set` fill in.

No validation library: pydantic or msgspec would replace `_build` (25 lines) and the ranges, but not the rules between
keys and the near names of a misspelt one, and their messages speak of types and paths, not of recipes.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acert_zoo._files import read_text
from acert_zoo.data.registration import dataset_info
from acert_zoo.errors import InvalidInputError, UnknownNameError
from acert_zoo.exact_numbers import parse_eps
from acert_zoo.network.architectures import ARCHITECTURES

RECIPES = Path(__file__).parent
REPLAYABLE = ("acert", "ibp", "crown-ibp", "standard")


def _in(where: str, value: float, low: float, high: float = math.inf) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        accepted = f"at least {low}" if high == math.inf else f"between {low} and {high}"
        raise InvalidInputError(f"recipe key {where!r} must be {accepted}, got {value}")


def _radius_or_nan(text: str) -> float:
    try:
        return float(parse_eps(text))
    except InvalidInputError:
        return math.nan


def _one_of(kind: str, value: str, known: Iterable[str]) -> None:
    if value not in (known := list(known)):
        raise UnknownNameError.near(kind, value, known)


@dataclass(frozen=True)
class Optimizer:
    name: str = "adam"  # adam, adamw, radam, muon (training/run/muon.py), or sgd with Nesterov momentum
    lr: float = 2e-3
    weight_decay: float = 0.0
    schedule: str = "onecycle"  # onecycle: three-phase, as the paper; linear: warm up, then straight down to 0
    warmup: float = 0.3  # share of all steps with a rising learning rate
    grad_clip: float = 10.0  # global L2 norm; 0: no clipping
    l1: float = 0.0
    ema: float = 0.0  # decay per step of an average of the weights, which is then validated and exported; 0: none

    def __post_init__(self) -> None:
        _one_of("optimizer", self.name, ("adam", "adamw", "radam", "muon", "sgd"))
        _one_of("learning-rate schedule", self.schedule, ("onecycle", "linear"))
        _in("optimizer.lr", self.lr, 0)
        _in("optimizer.weight_decay", self.weight_decay, 0)
        _in("optimizer.warmup", self.warmup, 0, 0.49 if self.schedule == "onecycle" else 1)
        _in("optimizer.grad_clip", self.grad_clip, 0)
        _in("optimizer.l1", self.l1, 0)
        _in("optimizer.ema", self.ema, 0, 0.999999)


@dataclass(frozen=True)
class Radius:
    """The certified-training radius and its schedule (0 in the first epochs, then a smooth ramp to eps_max)."""

    eps_max: str = "8.8/255"
    eps_min: str = "0"  # floor of ACERT's per-sample radius; 0: the paper's ACERT, eps_max: IBP (docs/training.md)
    first_epochs: float = 1.0
    ramp_epochs: float = 8.0
    evaluations: int = 4  # most IBP evaluations a sample may cost per step in the search for its radius
    tolerance: float = 0.1  # relative error of the radius above which a further evaluation is spent

    def __post_init__(self) -> None:
        largest, smallest = _radius_or_nan(self.eps_max), _radius_or_nan(self.eps_min)
        if not 0 < largest <= 1:
            raise InvalidInputError(
                f"recipe key 'radius.eps_max' must be a radius in (0, 1] such as \"8.8/255\", got {self.eps_max!r}"
            )
        if not 0 <= smallest <= largest:
            raise InvalidInputError(
                f"recipe key 'radius.eps_min' must be a radius in [0, radius.eps_max = {self.eps_max}] such as "
                f'"0.4/255", got {self.eps_min!r}'
            )
        _in("radius.first_epochs", self.first_epochs, 0)
        _in("radius.ramp_epochs", self.ramp_epochs, 0)
        _in("radius.evaluations", self.evaluations, 1)
        _in("radius.tolerance", self.tolerance, 0)

    @property
    def eps_max_value(self) -> float:
        return float(parse_eps(self.eps_max))

    @property
    def eps_min_value(self) -> float:
        return float(parse_eps(self.eps_min))


@dataclass(frozen=True)
class Regularizers:
    tight: float = 0.5
    relu: float = 0.5
    tolerance: float = 0.5

    def __post_init__(self) -> None:
        _in("regularizers.tight", self.tight, 0)
        _in("regularizers.relu", self.relu, 0)
        _in("regularizers.tolerance", self.tolerance, 1e-6, 1)


@dataclass(frozen=True)
class Augmentation:
    flip: bool = False
    crop_padding: int = 0  # random crop after padding by this many edge pixels

    def __post_init__(self) -> None:
        _in("augmentation.crop_padding", self.crop_padding, 0, 32)


@dataclass(frozen=True)
class CrownIBP:
    """Share of the CROWN-IBP bound in the margin bound (the rest is IBP), linear from the ramp's start to its end."""

    start: float = 1.0
    end: float = 0.0

    def __post_init__(self) -> None:
        _in("crown_ibp.start", self.start, 0, 1)
        _in("crown_ibp.end", self.end, 0, 1)


@dataclass(frozen=True)
class SABR:
    """The small box: its radius as a share of eps_t, and the attack (steps, first step size) that places it."""

    share: float = 0.4
    steps: int = 8
    step_size: float = 0.5

    def __post_init__(self) -> None:
        _in("sabr.share", self.share, 0, 1)
        _in("sabr.steps", self.steps, 0)
        _in("sabr.step_size", self.step_size, 0)


@dataclass(frozen=True)
class Expressive:
    """Of cc-ibp, mtl-ibp, exp-ibp and acert-mtl: the share of the bound loss, and the attack."""

    share: float = 0.5  # a of expressive.py
    attack: float = 1.0  # radius of the attack, as a multiple of the box's
    steps: int = 1
    step_size: float = 1.25  # first step size, as a share of the attack's radius

    def __post_init__(self) -> None:
        _in("expressive.share", self.share, 0, 1)
        _in("expressive.attack", self.attack, 0)
        _in("expressive.steps", self.steps, 0)
        _in("expressive.step_size", self.step_size, 0)


@dataclass(frozen=True)
class Recipe:
    dataset: str = "cifar10"
    objective: str = "acert"  # a name that `find_objective` (objectives.py) knows, or "module:function"
    kappa: float = 0.25
    kappa_start: float = -1.0  # kappa when the ramp begins, falling with eps_t to `kappa` at eps_max; negative: `kappa`
    arch: str = "cnn"
    arch_kwargs: dict[str, Any] = field(default_factory=dict)
    epochs: int = 16
    batch_size: int = 128  # global: shared out among the processes of a distributed run
    seed: int = 0
    label_smoothing: float = 0.0  # of the standard objective
    initialization: str = "ibp"  # ibp: normal(0, sqrt(2 pi) / fan_in); torch: the framework's default
    init_from: str = ""  # folder of a run, or a zoo model, whose weights are the initial ones
    precision: str = "float32"  # float32, tf32 (on a GPU), bfloat16: of a step's products; validation is float32
    compile: bool = False  # elementwise passes as torch.compile's loops
    cuda_graph: bool = False  # on a GPU: launches of steps whose radius stands still, recorded once and replayed
    precise_bn: int = 0  # batches over which BatchNorm's running statistics are taken anew when training ends
    validation_images: int = 5000  # how many of the held-out images are looked at after each epoch
    validate_every: int = 1  # epochs from one look to the next; the last epoch is always looked at
    optimizer: Optimizer = field(default_factory=Optimizer)
    radius: Radius = field(default_factory=Radius)
    regularizers: Regularizers = field(default_factory=Regularizers)
    augmentation: Augmentation = field(default_factory=Augmentation)
    crown_ibp: CrownIBP = field(default_factory=CrownIBP)
    sabr: SABR = field(default_factory=SABR)
    expressive: Expressive = field(default_factory=Expressive)

    def __post_init__(self) -> None:
        dataset_info(self.dataset)
        _one_of("architecture", self.arch, ARCHITECTURES)
        _one_of("initialization", self.initialization, ("ibp", "torch"))
        _one_of("precision", self.precision, ("float32", "tf32", "bfloat16"))
        if self.cuda_graph and self.objective not in REPLAYABLE:
            raise InvalidInputError(
                f"recipe key 'cuda_graph' is for objectives that draw no random numbers ({', '.join(REPLAYABLE)}), "
                f"not for {self.objective!r}"
            )
        _in("kappa", self.kappa, 0, 1)
        _in("kappa_start", self.kappa_start, -1, 1)
        _in("epochs", self.epochs, 1)
        _in("precise_bn", self.precise_bn, 0)
        _in("validate_every", self.validate_every, 1)
        _in("batch_size", self.batch_size, 2)
        _in("seed", self.seed, 0)
        _in("label_smoothing", self.label_smoothing, 0, 1)
        _in("validation_images", self.validation_images, 1)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """The recipe of nested tables; UnknownNameError for unknown keys, InvalidInputError for bad values."""
        return _build(cls, values, "")


def known_keys(cls: Any = Recipe, prefix: str = "") -> list[str]:
    """Every key that a recipe takes, nested ones with their dots."""
    keys: list[str] = []
    for f in dataclasses.fields(cls):
        nested = f.default_factory
        if isinstance(nested, type) and dataclasses.is_dataclass(nested):
            keys += known_keys(nested, f"{prefix}{f.name}.")
        else:
            keys.append(prefix + f.name)
    return keys


def _build(cls: Any, values: dict[str, Any], prefix: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(cls)}
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            raise UnknownNameError.near("recipe key", prefix + key, known_keys())
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
    """The recipe of a bundled name ("cifar10") or a TOML file, with "a.b=value" overrides (TOML values) applied.

    Raises:
        UnknownNameError: no such recipe or key.
        InvalidInputError: a file that is not TOML, an override without "=", or a value that is not accepted.
    """
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    if not path.exists():
        raise UnknownNameError.near("recipe", name, [p.stem for p in RECIPES.glob("*.toml")])
    try:
        values = tomllib.loads(read_text(path))
    except OSError as error:
        raise InvalidInputError(f"recipe file {str(path)!r} cannot be read: {error}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise InvalidInputError(f"{path} is not a TOML file: {error}") from None
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise InvalidInputError(f"--set takes key=value, got {override!r}")
        try:
            value = tomllib.loads(f"x = {text}")["x"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        table = values
        *parents, leaf = key.strip().split(".")
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise UnknownNameError.near("recipe key", key.strip(), known_keys())
        table[leaf] = value
    return Recipe.from_dict(values)
