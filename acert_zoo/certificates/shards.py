"""Shards: contiguous parts of a data set whose certificates are, bit for bit, those that one run over all would give.

What a search learns from the images of a batch it forgets with the batch (`bounds/radius_search.py`), and a batch is a
function of its images. So a shard is a run of *whole* batches, counted from the first image of the data set: then it is
the very batches that one run has, whatever else is certified where and when. Needs no torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from acert_zoo.errors import InvalidInputError

_TEXT = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, from 1: as the tasks of a Slurm array are counted with `--array=1-COUNT`."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise InvalidInputError(f"shard {self.number}/{self.count}: expected K/N with 1 <= K <= N, such as 3/8")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that "K/N" means.

        Raises:
            InvalidInputError: other texts, or K outside 1 to N.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise InvalidInputError(f"shard {text!r:.80}: expected K/N with 1 <= K <= N, such as 3/8")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def rows(self, n: int, batch_size: int) -> slice:
        """Which of `n` images it holds: whole batches, as many as in any other shard or one more.

        Raises:
            InvalidInputError: there are fewer batches than shards.
        """
        batches = -(-n // batch_size)
        if self.count > batches:
            raise InvalidInputError(
                f"shard {self}: {n:,} images in batches of {batch_size} make at most {batches} shards, of whole "
                "batches (a smaller batch size makes more)"
            )
        first, last = ((k * batches // self.count) for k in (self.number - 1, self.number))
        return slice(first * batch_size, min(last * batch_size, n))
