"""The rounding levels and the bound methods: names that the library, its files and the command line share. No torch.

What each level claims: docs/soundness.md; what each method computes: docs/bounds.md. Members are strings: they compare
equal to their text, and are written as it in JSON, in messages and in `repr`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, Self

from acert_zoo.errors import InvalidInputError, UnknownNameError


class _Name(StrEnum):
    """A name out of a closed list."""

    def __repr__(self) -> str:
        return repr(self.value)

    @classmethod
    def among(cls, name: str, known: Iterable[Self] | None = None) -> Self:
        """The member called `name`.

        Args:
            known: the members that are accepted here; all by default.

        Raises:
            UnknownNameError: there is none of that name; near names are suggested.
        """
        accepted = tuple(cls if known is None else known)
        for member in accepted:
            if member.value == name:
                return member
        raise UnknownNameError.near(cls._kind(), str(name), [member.value for member in accepted])

    @classmethod
    def _kind(cls) -> str:
        raise NotImplementedError


class RoundingLevel(_Name):
    """What a bound is proved for, in spite of rounding; the weakest first."""

    FLOAT32 = "float32"  # computed in float32, nothing proved about the rounding
    FLOAT64 = "float64"  # computed in float64, nothing proved about the rounding
    REAL_SOUND = "real-sound"  # proved for real arithmetic with the stored weights
    FLOAT32_DEPLOYED = "float32-deployed"  # proved for the float32 program, too

    @property
    def proved(self) -> bool:
        """Whether the level's claim takes rounding into account."""
        return self in PROVED_LEVELS

    @classmethod
    def _kind(cls) -> str:
        return "rounding level"


PROVED_LEVELS: Final = (RoundingLevel.REAL_SOUND, RoundingLevel.FLOAT32_DEPLOYED)
# What can be asked for. float64 is only recorded, in old files.
SELECTABLE_LEVELS: Final = (RoundingLevel.FLOAT32, *PROVED_LEVELS)


class BoundMethod(_Name):
    """How margins are bounded, in order of cost."""

    IBP = "ibp"
    CROWN_IBP = "crown-ibp"
    CROWN = "crown"
    ALPHA_CROWN = "alpha-crown"
    BEST = "best"  # the largest radius of all above; never recorded for an image
    COMPLETE = "complete"  # branch and bound at a bisection's eps

    @classmethod
    def _kind(cls) -> str:
        return "method"


CROWN_METHODS: Final = (BoundMethod.CROWN_IBP, BoundMethod.CROWN, BoundMethod.ALPHA_CROWN)


def proved_level(name: str) -> RoundingLevel:
    """The level called `name`, if it proves anything.

    Raises:
        UnknownNameError: there is no such level. InvalidInputError: its rounding is not proved.
    """
    level = RoundingLevel.among(name)
    if not level.proved:
        raise InvalidInputError(f"rounding level {name!r} proves nothing; proved levels: {', '.join(PROVED_LEVELS)}")
    return level


def weakest(levels: Iterable[str]) -> RoundingLevel:
    """The weakest of some rounding levels, at least one.

    >>> weakest(["float32-deployed", "real-sound"])
    'real-sound'
    """
    order = list(RoundingLevel)
    return order[min(order.index(RoundingLevel(level)) for level in levels)]
