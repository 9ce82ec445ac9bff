"""What is known of one checkpoint, as frozen dataclasses that check themselves. Needs no torch.

No validation library (pydantic, msgspec): records come from strangers too (config.json of a Hub repository), and what
is wrong with one is said as everywhere in this package, by an `AcertZooError` that names the value, what is accepted
and the nearest known name. A library would need most of these checks as validators of its own, and would be one more
compiled package for everybody who only loads a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import PurePosixPath
from typing import Any

from acert_zoo.data.registration import class_names
from acert_zoo.errors import InvalidInputError, UnknownNameError
from acert_zoo.exact_numbers import decimal_down
from acert_zoo.zoo.html_table import html_table

KINDS = ("model", "cascade")
METRICS = ("accuracy", "acr", "acr_percent", "certified_accuracy")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Metric:
    """One measured number, with everything needed to read it.

    `value` is in `unit` ("%" for accuracies and acr_percent, "pixel" for acr, a radius in pixel units of [0, 1]); `eps`
    is the radius a certified accuracy refers to, written exactly ("2/255"); `n` is the number of images.
    """

    metric: str
    value: float
    unit: str
    n: int
    dataset: str
    split: str
    eps: str | None = None
    method: str | None = None
    rounding: str | None = None

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise UnknownNameError.near("metric", self.metric, METRICS)
        share = type(self.value) in (int, float) and 0 <= self.value <= 100
        _expect(share, f"value of metric {self.metric!r}", self.value, "a number in [0, 100]")
        counted = type(self.n) is int and self.n >= 1
        _expect(counted, f"n of metric {self.metric!r}", self.n, "a positive number of images")
        for key in ("unit", "dataset", "split", "eps", "method", "rounding"):
            value = getattr(self, key)
            _expect(isinstance(value, str | None), f"{key} of metric {self.metric!r}", value, "a string")
        if (self.metric == "certified_accuracy") != (self.eps is not None and self.metric != "acr_percent"):
            raise InvalidInputError(f"metric {self.metric!r} with eps {self.eps!r}: certified accuracies need an eps")

    def as_row(self) -> tuple[str, str]:
        """Name and value as a table shows them: ("certified at 2/255", "39.99 % (ibp, real-sound)")."""
        percent = f"{decimal_down(self.value, 2)} %"
        if self.metric == "accuracy":
            return "natural accuracy", f"{percent} of {self.n:,} {self.split} images"
        if self.metric == "certified_accuracy":
            return f"certified at {self.eps}", f"{percent} ({self.method}, {self.rounding})"
        return "ACR", f"{percent} of {self.eps}"


@dataclass(frozen=True)
class HubLocation:
    """Where a checkpoint lies on the Hugging Face Hub: repository and the pinned revision (a commit id)."""

    repo_id: str
    revision: str

    def __post_init__(self) -> None:
        named = isinstance(self.repo_id, str) and _REPO.fullmatch(self.repo_id)
        _expect(named, "Hub repository", self.repo_id, "owner/name")
        pinned = isinstance(self.revision, str) and re.fullmatch(r"[0-9a-f]{40}", self.revision)
        _expect(pinned, "Hub revision", self.revision, "a commit id of 40 hexadecimal digits")


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What is known of one checkpoint. Only `name`, `arch` and `arch_kwargs` are known of every model.

    Attributes:
        kind: "model", or "cascade" (whose file is JSON that names its members).
        method: training objective ("acert", "ibp", "standard", ...).
        kappa: weight of the natural loss in training, in [0, 1].
        eps_max: largest training radius in pixel units, written exactly ("8.8/255").
        file: path of the weights, relative to the package (registry) or to config.json (a folder).
        sha256, size: of that file, checked before a byte of it is parsed; of a cascade, whose file is JSON, those of
            its canonical layout (`_json.canonical_json`).
        expected_logits: those of fixed images, compared after loading (see `acert_zoo.zoo.expected_logits`).
    """

    name: str
    arch: str
    arch_kwargs: Mapping[str, Any]
    version: int = 1
    kind: str = "model"
    dataset: str | None = None
    method: str | None = None
    kappa: float | None = None
    eps_max: str | None = None
    file: str | None = None
    sha256: str | None = None
    size: int | None = None
    parameters: int | None = None
    expected_logits: Mapping[str, Any] | None = None
    metrics: tuple[Metric, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    license: str | None = None
    hub: HubLocation | None = None

    def __post_init__(self) -> None:
        named = isinstance(self.name, str) and _NAME.fullmatch(self.name)
        _expect(named, "model name", self.name, "lower-case letters, digits and _")
        check = self._check
        check(type(self.version) is int and 1 <= self.version < 10**6, "version", "a positive integer")
        if self.kind not in KINDS:
            raise UnknownNameError.near("kind of model", self.kind, KINDS)
        check(isinstance(self.arch, str), "arch", "a name")
        check(isinstance(self.arch_kwargs, Mapping), "arch_kwargs", "an object")
        if self.sha256 is not None:
            digest = isinstance(self.sha256, str) and _DIGEST.fullmatch(self.sha256)
            check(digest, "sha256", "64 lower-case hexadecimal digits")
        if self.size is not None:
            check(type(self.size) is int and self.size >= 1, "size", "a positive number of bytes")
        if self.kappa is not None:
            check(type(self.kappa) in (int, float) and 0 <= self.kappa <= 1, "kappa", "a number in [0, 1]")
        if self.parameters is not None:
            check(type(self.parameters) is int, "parameters", "an integer")
        for key in ("dataset", "method", "eps_max", "license"):
            check(isinstance(getattr(self, key), str | None), key, "a string")
        for key in ("recipe", "training"):
            check(isinstance(getattr(self, key), Mapping), key, "an object")
        check(isinstance(self.expected_logits, Mapping | None), "expected_logits", "an object")
        if self.file is not None:
            check(_is_plain_relative(self.file), "file", "a plain relative path")

    def _check(self, condition: Any, field_name: str, expected: str) -> None:
        _expect(condition, f"{self.name}: {field_name}", getattr(self, field_name), expected)

    def __repr__(self) -> str:
        accuracy = self.metric("accuracy")
        parts = [
            repr(self.versioned_name),
            self.dataset,
            self.method or self.kind,
            None if self.kappa is None else f"kappa {self.kappa:g}",
            f"accuracy {decimal_down(accuracy.value, 2)} %" if accuracy else None,
        ]
        return f"ModelInfo({', '.join(part for part in parts if part)})"

    def _repr_html_(self) -> str:
        kappa = "" if self.kappa is None else f", kappa {self.kappa:g}"
        rows = [
            ("data set", self.dataset or "-"),
            ("trained with", f"{self.method or self.kind}{kappa}"),
            ("parameters", f"{self.parameters:,}" if self.parameters else "-"),
            *(m.as_row() for m in self.metrics if m.metric != "acr"),
        ]
        return html_table(self.versioned_name, rows)

    @property
    def versioned_name(self) -> str:
        """The name that never changes its meaning: `cifar10_kappa025.v1`."""
        return f"{self.name}.v{self.version}"

    def metric(self, metric: str, eps: str | None = None, split: str = "test") -> Metric | None:
        """The recorded metric of that name (and eps, for certified accuracies), or None."""
        for m in self.metrics:
            if m.metric == metric and m.split == split and (eps is None or m.eps == eps):
                return m
        return None

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON stores it."""
        return {**asdict(self), "metrics": [asdict(m) for m in self.metrics]}

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, in the order of the logits; empty where the data set is not known."""
        return class_names(self.dataset)

    @classmethod
    def from_dict(cls, record: Any) -> ModelInfo:
        """A record read from JSON; InvalidInputError or UnknownNameError where it is not a valid one."""
        values = _arguments(cls, record)
        metrics, hub = values.get("metrics", ()), values.get("hub")
        if not isinstance(metrics, Iterable):
            raise InvalidInputError(f"metrics is {metrics!r:.80}; expected a list")
        values["metrics"] = tuple(m if isinstance(m, Metric) else Metric(**_arguments(Metric, m)) for m in metrics)
        if hub is not None and not isinstance(hub, HubLocation):
            values["hub"] = HubLocation(**_arguments(HubLocation, hub))
        return cls(**values)


def _arguments(cls: Any, record: Any) -> dict[str, Any]:
    """The keyword arguments of dataclass `cls` from a JSON object, its keys checked."""
    if not isinstance(record, Mapping):
        raise InvalidInputError(f"a {cls.__name__} is {type(record).__name__}; expected a JSON object")
    known = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(cls)}
    for key in record:
        if key not in known:
            raise UnknownNameError.near(f"key of a {cls.__name__}", key, known)
    missing = [name for name, required in known.items() if required and name not in record]
    if missing:
        raise InvalidInputError(f"a {cls.__name__} needs the keys {', '.join(missing)}")
    return dict(record)


def _is_plain_relative(file: Any) -> bool:
    """Whether a path stays below the folder that it is relative to, on every system."""
    if not isinstance(file, str) or "\\" in file or ":" in file:
        return False
    path = PurePosixPath(file)
    return not path.is_absolute() and ".." not in path.parts and file == str(path)


def _expect(condition: Any, what: str, value: object, expected: str) -> None:
    """Raises an InvalidInputError that names the value and what is accepted, unless `condition` holds."""
    if not condition:
        raise InvalidInputError(f"{what} is {value!r:.200}; expected {expected}")
