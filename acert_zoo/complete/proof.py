"""A proof as data: trees of splits, slopes and multipliers; checked by one float64 evaluation of every leaf.

A `Proof` is about rows <c_m, logits> + d_m that are to be positive on one box. It holds a tree (`split_tree.py`) for
every row and, for every leaf, multipliers of its constraints and slopes of some neurons, as k / 255. Nothing in it is
trusted: the constraints of the leaves come from the trees, which must be whole, and any slopes in [0, 1] and any
multipliers >= 0 give true bounds. A proof that was tampered with proves less, or is refused; it cannot prove more.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from acert_zoo._json import parse_json
from acert_zoo.bounds.ibp import Interval
from acert_zoo.complete.leaf_proof import LeafProver, Leaves
from acert_zoo.complete.split_tree import Path, leaves
from acert_zoo.errors import CertificateFileError

LEVELS = 255
MAX_BYTES = 2**28  # of an unpacked proof
_MAGIC = b"acertP1\n"


@dataclass(frozen=True, eq=False)
class RowProof:
    """Attributes:
    tree: in preorder. slopes: uint8 [L, T] for its L leaves, k meaning k/255 (or float32, those themselves: not in
        files), or [0, T]: all neurons take the default slope.
    multipliers: float32, those of each leaf's constraints one after the other, from the root down.
    """

    tree: np.ndarray
    slopes: np.ndarray
    multipliers: np.ndarray

    def slopes_float64(self) -> np.ndarray:
        slopes = self.slopes.astype(np.float64)
        return slopes / LEVELS if self.slopes.dtype == np.uint8 else slopes


@dataclass(frozen=True, eq=False)
class Proof:
    """Attributes:
    refine: whether hidden boxes are tightened by CROWN, or are interval bounds.
    neurons: int32 [T], those that have slopes of their own. rows: one for each row of the question, in its order.
    """

    refine: bool
    neurons: np.ndarray
    rows: tuple[RowProof, ...]

    @property
    def leaves(self) -> int:
        return sum(int((row.tree == -1).sum()) for row in self.rows)

    def to_bytes(self) -> bytes:
        """Packed: magic, length of a JSON header, header, zlib of all arrays.

        Raises:
            ValueError: slopes that are not uint8.
        """
        if any(row.slopes.dtype != np.uint8 for row in self.rows):
            raise ValueError("only slopes of uint8 can be packed")
        arrays = [self.neurons.astype("<i4")]
        for row in self.rows:
            arrays += [row.tree.astype("<i4"), row.slopes.astype("u1"), row.multipliers.astype("<f4")]
        sizes = [[len(r.tree), len(r.slopes), len(r.multipliers)] for r in self.rows]
        header = {"refine": self.refine, "neurons": len(self.neurons), "rows": sizes}
        text = json.dumps(header, separators=(",", ":")).encode("ascii")
        body = zlib.compress(b"".join(a.tobytes() for a in arrays), 9)
        return _MAGIC + struct.pack("<I", len(text)) + text + body

    @classmethod
    def from_bytes(cls, data: bytes) -> Proof:
        """Raises:
        CertificateFileError: not such a proof, damaged, or larger than MAX_BYTES.
        """
        try:
            return cls._parse(data)
        except (ValueError, TypeError, KeyError, struct.error, zlib.error) as error:
            if isinstance(error, CertificateFileError):
                raise
            raise CertificateFileError(f"a proof cannot be read: {str(error)[:200]}") from error

    @classmethod
    def _parse(cls, data: bytes) -> Proof:
        if not data.startswith(_MAGIC):
            raise CertificateFileError(f"a proof begins with {data[: len(_MAGIC)]!r}; expected {_MAGIC!r}")
        (length,) = struct.unpack_from("<I", data, len(_MAGIC))
        begin = len(_MAGIC) + 4
        header = parse_json(data[begin : begin + length].decode("ascii"))
        sizes = [header["neurons"], *(n for row in header["rows"] for n in row)]
        if not all(type(n) is int and 0 <= n < 2**31 for n in sizes) or type(header["refine"]) is not bool:
            raise CertificateFileError(
                f"the header of a proof is {str(header)[:200]}; expected sizes >= 0, and refine true or false"
            )
        columns = header["neurons"]
        total = 4 * columns + sum(4 * t + columns * s + 4 * m for t, s, m in header["rows"])
        if total > MAX_BYTES:
            raise CertificateFileError(f"a proof of {total:,} bytes is larger than {MAX_BYTES:,}")
        unpacker = zlib.decompressobj()
        body = unpacker.decompress(data[begin + length :], total + 1)
        if len(body) != total or not unpacker.eof or unpacker.unused_data:
            raise CertificateFileError("a proof has another length than its header says")
        place = 0

        def take(kind: str, count: int) -> np.ndarray:
            nonlocal place
            array = np.frombuffer(body, kind, count, place)
            place += array.nbytes
            return array

        neurons = take("<i4", columns)
        rows = tuple(
            RowProof(take("<i4", t), take("u1", s * columns).reshape(s, columns), take("<f4", m))
            for t, s, m in header["rows"]
        )
        return cls(header["refine"], neurons, rows)


def default_proof(rows: int, refine: bool) -> Proof:
    """That every row is positive on the whole box by the default slopes (CROWN-IBP, or CROWN with `refine`)."""
    none = np.empty((0, 0), np.uint8)
    row = RowProof(np.array([-1], np.int32), none, np.empty(0, np.float32))
    return Proof(refine, np.empty(0, np.int32), (row,) * rows)


def check_proof(
    prover: LeafProver,
    boxes: list[Interval],
    rows: Tensor,
    const: Tensor,
    proof: Proof,
    *,
    prefix: Path = (),
    deadline: float = math.inf,
) -> list[Tensor]:
    """For each row the lower bounds, float64 [L], of its leaves; the row is proved where all of them are > 0.

    Args:
        boxes: rigorous, refined as the proof says. rows, const: float64 [M, K], [M].
        prefix: constraints that all leaves share; boxes need be true, and trees cover, only where they are satisfied.

    Raises:
        CertificateFileError: another number of rows, a tree that is not whole, arrays that do not fit.
        TimeoutError: the deadline has passed.
    """
    if len(proof.rows) != len(rows):
        raise CertificateFileError(f"the proof has {len(proof.rows)} rows, the claim {len(rows)}")
    total = prover.neurons(boxes)
    neurons = torch.from_numpy(proof.neurons.astype(np.int64))
    if len(neurons) and not (
        int(neurons.min()) >= 0 and int(neurons.max()) < total and len(neurons.unique()) == len(neurons)
    ):
        raise CertificateFileError("the proof gives slopes to neurons that do not exist, or twice")
    found = []
    for row, c, d in zip(proof.rows, rows, const, strict=True):
        paths = [(*prefix, *path) for path in leaves(row.tree.tolist(), total)]
        lengths = [len(path) for path in paths]
        if len(row.slopes) not in (0, len(paths)) or sum(lengths) != len(row.multipliers):
            raise CertificateFileError("the proof has not one set of slopes and multipliers for each leaf")
        if not bool((np.isfinite(row.multipliers) & (row.multipliers >= 0)).all()):
            raise CertificateFileError("the proof has multipliers that are negative or not finite")
        weights = _cut(row.multipliers.tolist(), lengths)
        own = len(row.slopes) > 0
        slopes = torch.from_numpy(row.slopes_float64())
        part = Leaves(
            c.expand(len(paths), -1),
            d.expand(len(paths)),
            paths,
            weights,
            neurons if own else neurons[:0],
            slopes if own else torch.empty(len(paths), 0, dtype=torch.float64),
        )
        found.append(prover.lower_bounds(boxes, part, deadline=deadline))
    return found


def _cut(values: list[float], lengths: Sequence[int]) -> list[list[float]]:
    parts, begin = [], 0
    for length in lengths:
        parts.append(values[begin : begin + length])
        begin += length
    return parts
