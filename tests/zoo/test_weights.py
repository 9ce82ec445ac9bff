"""Weights as bytes: what is read is what was written, and nothing else passes."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from acert_zoo.errors import InvalidInputError, WeightsError
from acert_zoo.zoo import weights

TENSORS = {
    "b.weight": torch.arange(6.0).view(2, 3),
    "a.bias": torch.tensor([0.1, -0.0]),
    "empty": torch.empty(0, 3),
    "count": torch.tensor(7),
}


def header_and(text: bytes, data: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text + data


def test_the_file_by_hand() -> None:
    header = b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    header += b" " * (-len(header) % 8)
    assert weights.serialize({"x": torch.tensor([1.0])}) == header_and(header, struct.pack("<f", 1.0))


def test_safetensors_itself_reads_what_is_written(tmp_path: Path) -> None:
    sha256, size = weights.write_safetensors(tmp_path / "w.safetensors", TENSORS, {"name": "x", "kappa": "0.25"})
    content = (tmp_path / "w.safetensors").read_bytes()
    assert (hashlib.sha256(content).hexdigest(), len(content)) == (sha256, size)
    theirs = load_file(tmp_path / "w.safetensors")
    ours = weights.read_tensors(weights.read_verified(tmp_path / "w.safetensors", sha256, size), "w")
    for name, tensor in TENSORS.items():
        assert torch.equal(theirs[name], tensor)
        assert torch.equal(ours[name], tensor)
    assert weights.read_metadata(content, "w") == {"name": "x", "kappa": "0.25"}


def test_files_that_safetensors_writes_are_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "w.safetensors", metadata={"format": "pt"})
    content = (tmp_path / "w.safetensors").read_bytes()
    assert torch.equal(weights.read_tensors(content, "w")["b.weight"], TENSORS["b.weight"])


def test_order_and_memory_layout_do_not_change_the_bytes() -> None:
    image = torch.arange(48.0).view(1, 3, 4, 4)
    there = weights.serialize({"a": image, "b": TENSORS["a.bias"]}, {"x": "1", "y": "2"})
    back = weights.serialize(
        {"b": TENSORS["a.bias"], "a": image.to(memory_format=torch.channels_last)}, {"y": "2", "x": "1"}
    )
    assert there == back


@given(
    st.dictionaries(
        st.text(min_size=1).filter(lambda name: name != "__metadata__"),
        st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=5),
        max_size=4,
    ),
    st.dictionaries(st.text(), st.text(), max_size=3),
)
def test_any_tensors_and_metadata_come_back(values: dict[str, list[float]], metadata: dict[str, str]) -> None:
    tensors = {name: torch.tensor(v, dtype=torch.float32) for name, v in values.items()}
    content = weights.serialize(tensors, metadata)
    read = weights.read_tensors(content, "w")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    assert weights.read_metadata(content, "w") == metadata
    assert weights.serialize(read, metadata) == content


@pytest.mark.parametrize(
    "tensor", [torch.tensor([float("nan")]), torch.tensor([float("inf")]), torch.ones(1, dtype=torch.float64)]
)
def test_only_finite_float32_is_written(tensor: torch.Tensor) -> None:
    with pytest.raises(InvalidInputError, match=r"'x'.*not finite float32"):
        weights.serialize({"x": tensor})


def test_a_file_with_nan_is_not_loaded() -> None:
    content = bytearray(weights.serialize({"x": torch.ones(1)}))
    content[-4:] = struct.pack("<f", float("nan"))
    with pytest.raises(WeightsError, match="'x' is not finite"):
        weights.read_tensors(bytes(content), "w")


def test_every_single_changed_byte_is_noticed_by_the_digest(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    sha256, size = weights.write_safetensors(path, {"x": torch.ones(3)})
    good = path.read_bytes()
    for i in range(size):
        path.write_bytes(good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :])
        with pytest.raises(WeightsError, match="is not the expected file"):
            weights.read_verified(path, sha256, size)
    assert path.exists()


@pytest.mark.parametrize("length", [0, 1, 50])
def test_truncated_and_lengthened_files_are_noticed_before_reading(tmp_path: Path, length: int) -> None:
    path = tmp_path / "w.safetensors"
    sha256, size = weights.write_safetensors(path, TENSORS)
    os.truncate(path, length)
    with pytest.raises(WeightsError, match=rf"{length} bytes instead of {size}"):
        weights.read_verified(path, sha256, size)
    os.truncate(path, size + 1)
    with pytest.raises(WeightsError, match="truncated or altered"):
        weights.read_verified(path, sha256, size)


def test_missing_file_folder_and_pipe(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No such file"):
        weights.read_verified(tmp_path / "none", "0" * 64)
    with pytest.raises(WeightsError, match="not a plain file"):
        weights.read_verified(tmp_path, "0" * 64)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(WeightsError, match="not a plain file"):
            weights.read_verified(tmp_path / "pipe", "0" * 64)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        b"\x00" * 16,
        (2**60).to_bytes(8, "little") + b"{}" * 20,
        header_and(b"[]"),
        header_and(b"{"),
        header_and(b"[" * 100_000),
        header_and(b'{"x": 3}'),
        header_and(b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'),
        header_and(b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', b"1234"),
        header_and(b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', b"12345678"),
        header_and(b'{"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', b"1234"),
        header_and(b'{"x":{"dtype":"F32","shape":[1099511627776,1099511627776],"data_offsets":[0,4]}}', b"1234"),
        header_and(b'{"x":{"dtype":"XYZ","shape":[1],"data_offsets":[0,4]}}', b"1234"),
        header_and(
            json.dumps({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "xy"}).encode(), b"1234"
        ),
    ],
)
def test_what_is_no_safetensors_file(content: bytes) -> None:
    with pytest.raises(WeightsError, match=r"w is not a (valid )?safetensors file"):
        weights.read_tensors(content, "w")


@given(st.binary(max_size=200))
def test_random_bytes_give_one_kind_of_error_or_tensors(content: bytes) -> None:
    with suppress(WeightsError):
        weights.read_tensors(content, "w")


@given(st.data())
def test_damaged_files_give_one_kind_of_error_or_tensors(data: st.DataObject) -> None:
    content = bytearray(weights.serialize(TENSORS, {"a": "b"}))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(WeightsError):
        weights.read_tensors(bytes(content), "w")
        weights.read_metadata(bytes(content), "w")
