"""What `verify` found: one report for each line of a certificate file, and one for the file."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from acert_zoo.certificates.lines import Header

PROVED, NOTHING_CLAIMED, NOT_PROVED, FAILED = "proved", "nothing claimed", "not re-proved", "failed"


@dataclass(frozen=True)
class LineReport:
    """What became of one line.

    Attributes:
        number: line number in the file (the header is line 1).
        status: "proved"; "nothing claimed" (radius 0; pixels and prediction checked); "not re-proved" (a
            floating-point bound that IBP does not prove); "failed".
        reasons: what is wrong with it, for people.
        margin: the margin bound that was proved at the claimed radius, logit units; None where none was computed.
    """

    number: int
    id: str
    status: str
    reasons: tuple[str, ...] = ()
    radius: str = "0.0"
    margin: float | None = None


@dataclass(frozen=True)
class VerifyReport:
    """What became of a file. `failures` are about the file as a whole, `lines` has one entry per image."""

    path: str
    header: Header
    lines: tuple[LineReport, ...]
    failures: tuple[str, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether everything that the file claims was proved."""
        return not self.failures and all(line.status in (PROVED, NOTHING_CLAIMED) for line in self.lines)

    @property
    def counts(self) -> dict[str, int]:
        """How many lines have each status."""
        counted = Counter(line.status for line in self.lines)
        return {status: counted[status] for status in (PROVED, NOTHING_CLAIMED, NOT_PROVED, FAILED)}

    @property
    def bad_lines(self) -> tuple[LineReport, ...]:
        return tuple(line for line in self.lines if line.status in (NOT_PROVED, FAILED))

    def to_dict(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "ok": self.ok,
            "header": asdict(self.header),
            "failures": list(self.failures),
            "counts": self.counts,
            "lines": [asdict(line) for line in self.lines],
            "seconds": self.seconds,
        }
