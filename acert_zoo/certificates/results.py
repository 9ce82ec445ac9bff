"""What `certify` returns: radii with their provenance, as tensors, as numbers for a table, as a file."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from acert_zoo._files import check_output_file, write_atomically
from acert_zoo.certificates.certificate import Certificate, Eps
from acert_zoo.certificates.display import data_frame, plot_certified_accuracy
from acert_zoo.certificates.file import SCHEMA_VERSION, format_file, read_file
from acert_zoo.certificates.lines import Header, Line, radius_text
from acert_zoo.certificates.positions import positions
from acert_zoo.data.registration import class_names
from acert_zoo.errors import InvalidInputError
from acert_zoo.exact_numbers import down, parse_eps, parse_pixel_eps, round_up
from acert_zoo.rounding import weakest
from acert_zoo.zoo.html_table import html_table


@dataclass(frozen=True, eq=False)
class Certificates(Sequence[Certificate]):
    """Certified l-inf radii of N images: a sequence of `Certificate`s, and their fields as columns.

    `result[3]` and iteration give one image's, `result[10:20]`, `result[mask]` and `result[[4, 2]]` those of some.

    Attributes:
        header: what all images share: model, digests, rounding level, data set, when.
        radius: float64 [N], pixel units of [0, 1], never more than was proved; 0 where the image is misclassified or
            nothing could be proved.
        margin: float64 [N], proved lower bound (logit units) of the margin at that radius; NaN where radius is 0.
        prediction: int64 [N], argmax of the model's logits.
        label: int64 [N], what is certified: the given label, or the prediction where none was given.
        method: what proved the radius ("ibp", "crown-ibp", ...), per image.
        roundings: rounding level of each radius; `rounding` is the weakest of them.
        seconds: float64 [N], time spent, a batch's time divided equally.
        ids, pixel_sha256: name and digest of each image.
        route: per image how a cascade answered; None for plain models.
    """

    header: Header
    radius: Tensor
    margin: Tensor
    prediction: Tensor
    label: Tensor
    method: list[str]
    roundings: list[str]
    seconds: Tensor
    ids: list[str]
    pixel_sha256: list[str]
    route: list[int | None] | None = None

    def __post_init__(self) -> None:
        lengths = {f.name: len(getattr(self, f.name)) for f in dataclasses.fields(self)[1:] if f.name != "route"}
        if len(set(lengths.values())) != 1 or (self.route is not None and len(self.route) != len(self.radius)):
            raise InvalidInputError(f"certificates need one entry per image in each field, got {lengths}")

    def __len__(self) -> int:
        return len(self.radius)

    @overload
    def __getitem__(self, index: int) -> Certificate: ...

    @overload
    def __getitem__(self, index: slice | Sequence[int] | Sequence[bool] | Tensor | np.ndarray) -> Certificates: ...

    def __getitem__(self, index: Any) -> Certificate | Certificates:
        """One image's certificate by its position, or those of a slice, of positions, or of a boolean mask [N]."""
        if isinstance(index, (int, np.integer)) and not isinstance(index, bool):
            i = range(len(self))[index]  # negative positions count from the end; IndexError beyond
            return Certificate(
                id=self.ids[i],
                radius=self.radius[i].item(),
                margin=self.margin[i].item(),
                prediction=int(self.prediction[i]),
                label=int(self.label[i]),
                method=self.method[i],
                rounding=self.roundings[i],
                seconds=self.seconds[i].item(),
                pixel_sha256=self.pixel_sha256[i],
                route=None if self.route is None else self.route[i],
            )
        rows = positions(index, len(self))
        columns: dict[str, Any] = {}
        for f in dataclasses.fields(self)[1:]:
            column = getattr(self, f.name)
            if isinstance(column, Tensor):
                columns[f.name] = column[torch.tensor(rows, dtype=torch.int64)]
            else:
                columns[f.name] = None if column is None else [column[i] for i in rows]
        rounding = weakest(columns["roundings"]) if rows else self.rounding
        return Certificates(dataclasses.replace(self.header, n=len(rows), rounding=rounding), **columns)

    def __repr__(self) -> str:
        return (
            f"Certificates(model={self.model!r}, n={len(self)}, accuracy={self.accuracy:.4f}, acr={self.acr:.6f}, "
            f"rounding={self.rounding!r})"
        )

    def _repr_html_(self) -> str:
        rows = [("images", f"{len(self):,}"), ("certified", {"label": "the labels"}.get(self.certifies, "predictions"))]
        if len(self):
            if self.certifies == "label":
                rows.append(("natural accuracy", f"{int(self.correct.sum()):,} of {len(self):,}"))
            rows.append(("with a radius", f"{int((self.radius > 0).sum()):,}"))
            rows.append(("mean radius", f"{down(self.acr, 6)} of pixel units"))
            rows.append(("proved by", f"{', '.join(sorted(set(self.method)))}; {self.rounding}"))
        return html_table(f"Certificates of {self.model or 'a network of your own'}", rows)

    def to_pandas(self) -> Any:
        """A pandas DataFrame with one row an image: id, label, prediction, correct, radius, margin, method, rounding,
        seconds, and route for a cascade; MissingDependencyError where pandas is not installed."""
        columns = {
            "id": self.ids,
            "label": self.label.numpy(),
            "prediction": self.prediction.numpy(),
            "correct": self.correct.numpy(),
            "radius": self.radius.numpy(),
            "margin": self.margin.numpy(),
            "method": self.method,
            "rounding": self.roundings,
            "seconds": self.seconds.numpy(),
        }
        return data_frame(columns if self.route is None else {**columns, "route": self.route})

    def plot(self, ax: Any = None, *, eps_max: Eps | None = None, **style: Any) -> Any:
        """Draws certified accuracy (percent) over eps (pixel units) with matplotlib; returns the axes.

        Args:
            ax: axes to draw into, for comparing several results (a legend names them); new ones by default.
            eps_max: where the axis ends, by default at the largest radius.
            style: of the line (`color`, `label`, ...).

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        top = None if eps_max is None else float(parse_eps(eps_max))
        return plot_certified_accuracy(self.radius.numpy(), ax, top, **{"label": self.model, **style})

    @property
    def model(self) -> str | None:
        """Registered name, None for a network of one's own."""
        return self.header.model

    @property
    def model_version(self) -> int | None:
        return self.header.model_version

    @property
    def weights_sha256(self) -> str | None:
        return self.header.weights_sha256

    @property
    def rounding(self) -> str:
        """The weakest rounding level of any radius."""
        return self.header.rounding

    @property
    def norm(self) -> str:
        return self.header.norm

    @property
    def certifies(self) -> str:
        """ "label": the given labels are certified; "prediction": the model's own."""
        return self.header.certifies

    @property
    def dataset(self) -> str | None:
        return self.header.dataset

    @property
    def split(self) -> str | None:
        return self.header.split

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, of the data set or of the registered model's; empty where neither is known."""
        from acert_zoo.zoo.registry import list_models, model_info

        named = self.model if self.dataset is None and self.model in list_models() else None
        return class_names(self.dataset if named is None else model_info(named).dataset)

    @property
    def package_version(self) -> str:
        return self.header.package_version

    @property
    def created(self) -> str:
        return self.header.created

    @property
    def schema_version(self) -> int:
        return SCHEMA_VERSION

    @property
    def correct(self) -> Tensor:
        """[N] bool: the prediction is the label."""
        return self.prediction == self.label

    @property
    def accuracy(self) -> float:
        """Natural accuracy in [0, 1]; NaN where no labels were given, or of no images."""
        return _mean(self.correct) if self.certifies == "label" else math.nan

    @property
    def acr(self) -> float:
        """Average certified radius in pixel units, misclassified images counting 0; NaN of no images."""
        return _mean(self.radius)

    def acr_percent(self, eps_max: Eps) -> float:
        """100 * mean(min(radius, eps_max)) / eps_max: the ACR as a share of the largest training radius."""
        cap = float(parse_pixel_eps(eps_max))
        if cap == 0:
            raise InvalidInputError("acr_percent needs eps_max > 0")
        return 100 * _mean(self.radius.clamp(max=cap)) / cap

    def certified(self, eps: Eps) -> Tensor:
        """[N] bool: correct, and proved to stay so within `eps`, compared exactly ("2/255" is the fraction)."""
        return (self.radius >= round_up(parse_pixel_eps(eps))) & (self.radius > 0)

    def certified_accuracy(self, eps: Eps) -> float:
        """Share of images in [0, 1] that are certified at `eps`; NaN of no images."""
        return _mean(self.certified(eps))

    def lines(self) -> list[Line]:
        """The certificates as lines of a file."""
        return [
            Line(
                **{
                    **dataclasses.asdict(one),
                    "certifies": self.certifies,
                    "radius": radius_text(one.radius),
                    "margin": one.margin if math.isfinite(one.margin) else None,
                }
            )
            for one in self
        ]

    @classmethod
    def from_lines(cls, header: Header, lines: Sequence[Line]) -> Certificates:
        """The inverse of `lines`; radii are read so that none exceeds what was proved."""

        def column(values: list[Any], dtype: torch.dtype) -> Tensor:
            return torch.tensor(values, dtype=dtype)

        rounding = weakest(line.rounding for line in lines) if lines else header.rounding
        return cls(
            header=dataclasses.replace(header, n=len(lines), rounding=rounding),
            radius=column([float(line.radius) for line in lines], torch.float64),
            margin=column([math.nan if line.margin is None else line.margin for line in lines], torch.float64),
            prediction=column([line.prediction for line in lines], torch.int64),
            label=column([line.label for line in lines], torch.int64),
            method=[line.method for line in lines],
            roundings=[line.rounding for line in lines],
            seconds=column([line.seconds for line in lines], torch.float64),
            ids=[line.id for line in lines],
            pixel_sha256=[line.pixel_sha256 for line in lines],
            route=[line.route for line in lines] if any(line.route is not None for line in lines) else None,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the certificate file (JSON Lines, docs/certificates.md), atomically.

        Raises:
            InvalidInputError: the folder does not exist or cannot be written.
        """
        check_output_file(path)
        content = format_file(dataclasses.replace(self.header, n=len(self)), self.lines())
        try:
            write_atomically(Path(path), content)
        except OSError as error:
            raise InvalidInputError(f"output file {str(path)!r} cannot be written: {error}") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, partial: bool = False) -> Certificates:
        """Reads a certificate file. What it claims is believed: `acert_zoo.certificates.verify.verify_file` proves it
        again.

        Args:
            partial: accept what a broken-off run left.

        Raises:
            CertificateFileError: missing, incomplete, damaged or of an unknown schema.
        """
        file = read_file(path, partial=partial)
        return cls.from_lines(file.header, file.lines)

    def to_dict(self, classes: Sequence[str] | None = None) -> dict[str, Any]:
        """Header, summary and one record per image, with its classes' names where known; undefined numbers are None.

        Args:
            classes: the names, where neither data set nor model say them; by default `self.classes`.
        """
        header = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self.header), "n": len(self)}
        summary = {"accuracy": self.accuracy, "acr": self.acr, "certified": int((self.radius > 0).sum())}
        images, classes = [], self.classes if classes is None else classes
        for line, radius in zip(self.lines(), self.radius.tolist(), strict=True):
            both = (("label_name", line.label), ("prediction_name", line.prediction))
            names = {key: classes[k] for key, k in both if k < len(classes)}
            images.append({**dataclasses.asdict(line), **names, "radius": radius, "radius_text": line.radius})
        return {**header, **{k: None if math.isnan(v) else v for k, v in summary.items()}, "images": images}

    def to_json(self, indent: int | None = None) -> str:
        """`to_dict` as one JSON document."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)


def _mean(values: Tensor) -> float:
    return values.double().mean().item() if len(values) else math.nan
