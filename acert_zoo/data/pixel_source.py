"""What a data set is to those who certify it in parts: numbered images that any process can read a range of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from torch import Tensor


class PixelSource(Protocol):
    """Images 0 to n - 1 with names and perhaps labels. It pickles small: what it opens it opens in each process anew.

    Attributes:
        description: for people, "cifar10 test images".
        dataset, split: as in the header of a certificate file; None where it is no registered data set.
        labelled: whether there are labels, of every image.
        fingerprint: of which images these are, without reading them: names, sizes, shapes.
    """

    @property
    def description(self) -> str: ...

    @property
    def dataset(self) -> str | None: ...

    @property
    def split(self) -> str | None: ...

    @property
    def labelled(self) -> bool: ...

    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...

    def ids(self, rows: range) -> list[str]:
        """Their names, distinct in the whole source."""
        ...

    def find(self, name: str) -> int | None:
        """The number of the image of that name; None where there is none."""
        ...

    def read(self, rows: range) -> tuple[Tensor, Tensor | None]:
        """(float32 pixels [n, C, H, W] in [0, 1], int64 labels [n] or None) of these images.

        Raises:
            InvalidInputError: an image or a label cannot be used; it is named.
        """
        ...


class ImagesByName(Mapping[str, Tensor]):
    """The images [C, H, W] of a source under their names, read when they are asked for."""

    def __init__(self, source: PixelSource) -> None:
        self._source = source

    def __getitem__(self, name: str) -> Tensor:
        row = self._source.find(name)
        if row is None:
            raise KeyError(name)
        return self._source.read(range(row, row + 1))[0][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._source.ids(range(len(self._source))))

    def __len__(self) -> int:
        return len(self._source)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._source.find(name) is not None
