"""Images in folders, searched to any depth; folders named like classes give the labels (docs/images.md)."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from acert_zoo.data.image_files import load_images
from acert_zoo.data.image_paths import folder_labels, image_paths
from acert_zoo.data.registration import dataset_info
from acert_zoo.errors import UnknownNameError


@dataclass(frozen=True)
class FolderSource:
    """Image files in the order of their paths.

    Attributes:
        names: their paths, which are their ids.
        targets: their labels, or None.
    """

    names: tuple[str, ...]
    targets: tuple[int, ...] | None
    input_shape: tuple[int, ...]
    resize: bool = False
    dataset: None = field(default=None, init=False)
    split: None = field(default=None, init=False)

    @classmethod
    def of(
        cls, folder: str | os.PathLike[str], input_shape: tuple[int, ...], classes_of: str | None, resize: bool
    ) -> FolderSource:
        """The images below `folder`, labelled where folders are named like the classes of data set `classes_of`.

        Raises:
            InvalidInputError, UnknownNameError: there are none, or some lie in no class's folder.
        """
        paths = image_paths([folder])
        try:
            info = dataset_info(classes_of) if classes_of else None
        except UnknownNameError:  # a model of one's own may name a data set that is not registered here
            info = None
        labels = folder_labels(paths, info.class_folders, info.name) if info else None
        names = tuple(str(found.path) for found in paths)
        return cls(names, None if labels is None else tuple(labels), input_shape, resize)

    @property
    def description(self) -> str:
        return "image files" if self.targets is None else "image files, labelled by their folders"

    @property
    def labelled(self) -> bool:
        return self.targets is not None

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr((self.targets, self.resize)).encode())
        for name in self.names:
            digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.names)

    def ids(self, rows: range) -> list[str]:
        return list(self.names[rows.start : rows.stop])

    def find(self, name: str) -> int | None:
        return self._index.get(name)

    def read(self, rows: range) -> tuple[Tensor, Tensor | None]:
        pixels = load_images(self.names[rows.start : rows.stop], self.input_shape, resize=self.resize)
        if self.targets is None:
            return pixels, None
        return pixels, torch.tensor(self.targets[rows.start : rows.stop], dtype=torch.int64)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_index"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
