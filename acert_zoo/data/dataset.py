"""What is known of a data set, as one frozen dataclass. Needs neither NumPy nor torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path

from acert_zoo.errors import InvalidInputError
from acert_zoo.exact_numbers import parse_eps


@dataclass(frozen=True)
class DatasetInfo:
    """Facts of one data set. `eps_max` and `reported_eps` are l-inf radii in pixel units, written exactly.

    Attributes:
        input_shape: (C, H, W); C is 1 (greyscale) or 3 (RGB).
        classes: names of the classes, in the order of the labels.
        mean, std: normalisation constants of pixels in [0, 1], one a channel.
        eps_max: the largest radius of training by default, and the unit of ACR percentages.
        reported_eps: radii at which certified accuracy is reported.
        folders: per class the name of its images' folder, where that is not the class's name.
        validation: how many training images are held out for validation; below 1, their share.
        title, about: for people: "CIFAR-10", and one sentence.
        source, license: where the data come from, and their terms.
        bibtex: how to cite them; empty: not known.
        hub_id: id on the Hugging Face Hub; empty: none.
        files: folder of the images or arrays; None: `<folder of the data sets>/<name>`.
        resize: images of another size or colour mode are converted when they are read.
    """

    name: str
    input_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    eps_max: str
    reported_eps: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    validation: float = 0.1
    title: str = ""
    about: str = ""
    source: str = ""
    license: str = ""
    bibtex: str = ""
    hub_id: str = ""
    files: Path | None = None
    resize: bool = False

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def eps_max_value(self) -> float:
        """`eps_max` as the nearest float64."""
        return float(parse_eps(self.eps_max))

    @property
    def class_folders(self) -> list[tuple[str, ...]]:
        """Per class, the names that a folder of its images may have."""
        return [(*self.folders[k : k + 1], name) for k, name in enumerate(self.classes)]

    @property
    def display_name(self) -> str:
        """The name for people: "CIFAR-10"."""
        return self.title or self.name

    @property
    def held_out(self) -> str:
        """What is held out for validation, for people: "5,000 images", "10 % of the images"."""
        if self.validation >= 1:
            return f"{self.validation:,.0f} images"
        return f"{100 * self.validation:g} % of the images"

    def validation_size(self, n: int) -> int:
        """How many of `n` training images are held out: all where there are no more; an error where none would be."""
        size = round(self.validation * n) if self.validation < 1 else int(self.validation)
        if not size:
            raise InvalidInputError(
                f"data set {self.name!r}: validation = {self.validation:g} holds out none of {n} training images"
            )
        return min(size, n)

    def without_files(self) -> DatasetInfo:
        """The facts alone, which hold wherever the data lie."""
        return replace(self, files=None)

    def to_toml(self) -> str:
        """The registration as a file's text, `files` as an absolute path; `read_registration` reads it back."""
        lines = []
        for f in fields(self):
            value = getattr(self, f.name)
            if value != f.default and value is not None:
                value = str(value.absolute()) if isinstance(value, Path) else value
                text = json.dumps(value, ensure_ascii=False).replace("\x7f", r"\u007f")  # all else is TOML as it is
                lines.append(f"{f.name} = {text}\n")
        return "".join(lines)
