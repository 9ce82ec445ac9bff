"""Proofs as bytes: read back as written; refused, or proving no more, when tampered with."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch

from acert_zoo.bounds.ibp import Interval
from acert_zoo.complete.leaf_proof import LeafProver
from acert_zoo.complete.proof import Proof, RowProof, check_proof, default_proof
from acert_zoo.errors import CertificateFileError
from tests.support.relu_patterns import tiny_network

F64 = torch.float64


def example() -> Proof:
    rows = (
        RowProof(
            np.array([1, -1, -1], np.int32), np.array([[0, 9], [255, 7]], np.uint8), np.array([0.5, 2], np.float32)
        ),
        RowProof(np.array([-1], np.int32), np.empty((0, 2), np.uint8), np.empty(0, np.float32)),
    )
    return Proof(True, np.array([0, 1], np.int32), rows)


def test_read_back_as_written() -> None:
    proof, again = example(), Proof.from_bytes(example().to_bytes())
    assert again.refine
    assert again.neurons.tolist() == [0, 1]
    for a, b in zip(proof.rows, again.rows, strict=True):
        assert [x.tolist() for x in (a.tree, a.slopes, a.multipliers)] == [
            x.tolist() for x in (b.tree, b.slopes, b.multipliers)
        ]
    assert proof.leaves == again.leaves == 3


def test_damaged_bytes_are_refused() -> None:
    data = example().to_bytes()
    for bad in (
        b"",
        data[:7],
        data[:20],
        data[:-1],
        data + b"x",
        b"x" + data[1:],
        data.replace(b'"refine":true', b'"refine":1234'),
    ):
        with pytest.raises(CertificateFileError):
            Proof.from_bytes(bad)


def test_a_header_that_announces_too_much_is_refused_before_anything_is_unpacked() -> None:
    header = b'{"refine":true,"neurons":1,"rows":[[1,2147483647,0]]}'
    with pytest.raises(CertificateFileError, match="larger than"):
        Proof.from_bytes(b"acertP1\n" + struct.pack("<I", len(header)) + header)


class TestTampering:
    """A proof of another claim, or with data that no proof may have."""

    def check(self, proof: Proof) -> list[torch.Tensor]:
        prover = LeafProver(tiny_network(3))
        box = Interval(torch.zeros(1, 2, dtype=F64), torch.ones(1, 2, dtype=F64))
        rows = torch.tensor([[1.0, -1.0]], dtype=F64)
        return check_proof(prover, prover.boxes(box), rows, torch.zeros(1, dtype=F64), proof)

    def one(self, tree: list[int], multipliers: list[float], slopes: np.ndarray | None = None) -> Proof:
        slopes = np.empty((0, 0), np.uint8) if slopes is None else slopes
        row = RowProof(np.array(tree, np.int32), slopes, np.array(multipliers, np.float32))
        return Proof(True, np.arange(slopes.shape[1], dtype=np.int32), (row,))

    def test_sound_data_is_accepted(self) -> None:
        (bounds,) = self.check(self.one([0, -1, -1], [0.0, 3.0]))
        assert bounds.shape == (2,)
        assert bool(bounds.isfinite().all())

    @pytest.mark.parametrize("bad", [-1e-9, float("nan"), float("inf")])
    def test_multipliers_must_be_finite_and_not_negative(self, bad: float) -> None:
        with pytest.raises(CertificateFileError, match="multipliers"):
            self.check(self.one([0, -1, -1], [0.0, bad]))

    def test_a_leaf_cannot_be_left_out(self) -> None:
        with pytest.raises(CertificateFileError, match="not whole"):
            self.check(self.one([0, -1], [0.0]))

    def test_each_leaf_needs_its_data(self) -> None:
        with pytest.raises(CertificateFileError, match="for each leaf"):
            self.check(self.one([0, -1, -1], [0.0]))
        with pytest.raises(CertificateFileError, match="for each leaf"):
            self.check(self.one([0, -1, -1], [0.0, 0.0], np.zeros((1, 2), np.uint8)))

    def test_neurons_must_exist_and_be_named_once(self) -> None:
        row = RowProof(np.array([-1], np.int32), np.zeros((1, 2), np.uint8), np.empty(0, np.float32))
        for neurons in ([0, 5], [-1, 0], [2, 2]):
            with pytest.raises(CertificateFileError, match="do not exist, or twice"):
                self.check(Proof(True, np.array(neurons, np.int32), (row,)))

    def test_the_number_of_rows_is_that_of_the_claim(self) -> None:
        with pytest.raises(CertificateFileError, match="rows"):
            self.check(default_proof(2, True))
