"""Images in WebDataset shards: plain tar files whose members `KEY.png` and `KEY.cls` are an image and its label.

Read with the standard library, not with the webdataset package: that streams and shuffles for training, whereas a part
of a data set is a range of numbered images that several processes read again and again. So the headers of a tar file
are read once, which touches 512 bytes an image, and images by their place. Of a data set of any size only the number of
images in each tar file stays in memory. Nothing is unpacked, and members are never used as paths.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor

from acert_zoo._files import open_plain
from acert_zoo.data.image_decoding import SUFFIXES, EncodedImage
from acert_zoo.data.image_files import load_images
from acert_zoo.errors import InvalidInputError

MAX_IMAGE = 2**28  # bytes of one encoded image
MAX_LABEL = 32  # bytes of one label
_Place = tuple[int, int]  # offset and length in the tar file


@dataclass(frozen=True)
class _Sample:
    key: str
    suffix: str
    image: _Place
    label: _Place | None


@dataclass(frozen=True)
class TarSource:
    """The images of tar files, in the order of the files and of their members; an id is `FILE.tar/KEY`.

    Attributes:
        counts: how many images each file has.
    """

    files: tuple[str, ...]
    counts: tuple[int, ...]
    labelled: bool
    input_shape: tuple[int, ...]
    resize: bool = False
    dataset: None = field(default=None, init=False)
    split: None = field(default=None, init=False)

    @classmethod
    def of(
        cls, files: Sequence[str | os.PathLike[str]], input_shape: tuple[int, ...], resize: bool = False
    ) -> TarSource:
        """Reads the headers of the files.

        Raises:
            InvalidInputError: a file is no plain tar file, or two have one name; a sample has no image or several, or
                a label although others have none.
        """
        names = tuple(os.fspath(file) for file in files)
        if not names or len({os.path.basename(name) for name in names}) != len(names):
            raise InvalidInputError(f"tar files need distinct names, which ids begin with; got {names!r:.200}")
        counts, labelled = [], None
        for name in names:
            for sample in (found := _samples(name)):
                labelled = sample.label is not None if labelled is None else labelled
                if labelled != (sample.label is not None):
                    raise InvalidInputError(
                        f"{name!r}: sample {sample.key!r:.80} breaks the rule: all have a .cls or none"
                    )
            counts.append(len(found))
        return cls(names, tuple(counts), bool(labelled), input_shape, resize)

    @property
    def description(self) -> str:
        return f"images of {len(self.files):,} tar files"

    @property
    def fingerprint(self) -> str:
        sizes = [(os.path.basename(name), os.path.getsize(name)) for name in self.files]
        return hashlib.sha256(repr((sizes, self.counts, self.resize)).encode()).hexdigest()

    def __len__(self) -> int:
        return sum(self.counts)

    def ids(self, rows: range) -> list[str]:
        return [self._id(name, sample) for name, sample in self._chosen(rows)]

    def find(self, name: str) -> int | None:
        file, _, key = name.partition("/")
        before = 0
        for path, count in zip(self.files, self.counts, strict=True):
            if os.path.basename(path) == file:
                return next((before + i for i, sample in enumerate(_samples(path)) if sample.key == key), None)
            before += count
        return None

    def read(self, rows: range) -> tuple[Tensor, Tensor | None]:
        encoded, labels = [], []
        for name, sample in self._chosen(rows):
            with open_plain(name) as file:
                content = _content(file, sample.image)
                encoded.append(EncodedImage(f"{self._id(name, sample)}{sample.suffix}", content))
                if sample.label is not None:
                    labels.append(_label(_content(file, sample.label), self._id(name, sample)))
        pixels = load_images(encoded, self.input_shape, resize=self.resize)
        return pixels, torch.tensor(labels, dtype=torch.int64) if self.labelled else None

    def _chosen(self, rows: range) -> Iterator[tuple[str, _Sample]]:
        ends = list(accumulate(self.counts))
        row = rows.start
        while row < rows.stop:
            k = bisect_right(ends, row)
            begin, stop = ends[k] - self.counts[k], min(ends[k], rows.stop)
            for sample in _samples(self.files[k])[row - begin : stop - begin]:
                yield self.files[k], sample
            row = stop

    @staticmethod
    def _id(name: str, sample: _Sample) -> str:
        return f"{os.path.basename(name)}/{sample.key}"


def _content(file: object, place: _Place) -> bytes:
    file.seek(place[0])  # type: ignore[attr-defined]
    return file.read(place[1])  # type: ignore[attr-defined,no-any-return]


def _label(content: bytes, name: str) -> int:
    text = content.decode("ascii", "replace").strip()
    if not text.isdecimal() or not text.isascii():
        raise InvalidInputError(f"the label {text!r:.40} of {name!r} is no class index: a .cls member holds digits")
    return int(text)


def _samples(path: str) -> tuple[_Sample, ...]:
    """The samples of one tar file, read anew only where it has changed."""
    try:
        return _samples_as_of(path, os.stat(path).st_mtime_ns)
    except OSError as error:
        raise InvalidInputError(f"{path!r} cannot be read as a plain tar file: {error}") from None


@lru_cache(maxsize=4)
def _samples_as_of(path: str, changed: int) -> tuple[_Sample, ...]:
    """The samples of one tar file. Members of one key stand together, as WebDataset writes and demands them."""
    groups: dict[str, dict[str, _Place]] = {}
    last = None
    try:
        with open_plain(path) as opened, tarfile.open(fileobj=opened, mode="r:") as file:
            for member in file:
                base = os.path.basename(member.name)
                if not member.isreg() or member.issparse() or base.startswith((".", "__")):
                    continue
                stem, _, suffix = base.partition(".")
                key = os.path.join(os.path.dirname(member.name), stem)
                if key in groups and key != last:
                    raise InvalidInputError(f"{path!r}: the members of sample {key!r:.80} do not stand together")
                group, last = groups.setdefault(key, {}), key
                suffix = f".{suffix.lower()}"
                if suffix in group:
                    raise InvalidInputError(f"{path!r}: sample {key!r:.80} has two members {suffix!r}")
                if suffix in SUFFIXES or suffix == ".cls":
                    if member.size > (MAX_LABEL if suffix == ".cls" else MAX_IMAGE):
                        raise InvalidInputError(f"{path!r}: member {member.name!r:.80} has {member.size:,} bytes")
                    group[suffix] = member.offset_data, member.size
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InvalidInputError(
            f"{path!r} cannot be read as a plain tar file: {error} (of a compressed one no part can be read by its "
            "place: gunzip it)"
        ) from None
    return tuple(_sample(path, key, group) for key, group in groups.items())


def _sample(path: str, key: str, group: dict[str, _Place]) -> _Sample:
    images = [suffix for suffix in group if suffix != ".cls"]
    if len(images) != 1:
        raise InvalidInputError(
            f"{path!r}: sample {key!r:.80} has {len(images)} images; one member of {', '.join(SUFFIXES)} is needed"
        )
    return _Sample(key, images[0], group[images[0]], group.get(".cls"))
