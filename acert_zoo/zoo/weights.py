"""Weights as bytes: checked against size and digest, then parsed as safetensors, never unpickled.

The whole file is read once, and the bytes that were hashed are the bytes that are parsed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acert_zoo._files import open_plain, write_atomically
from acert_zoo._json import canonical_json, parse_json
from acert_zoo.errors import InvalidInputError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor

MAX_BYTES = 2 * 2**30
MAX_JSON = 2**20
_MAX_HEADER = 16 * 2**20
_PICKLE_MARKS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def read_verified(
    path: str | os.PathLike[str], sha256: str | None, size: int | None = None, *, limit: int = MAX_BYTES
) -> bytes:
    """The content of `path`, once its size and full sha256 are those expected (None: not checked).

    Raises:
        WeightsError: missing, unreadable, too large, truncated or altered. The file is left where it is.
    """
    content = _read(path, size, limit)
    _check_digest(path, content, sha256)
    return content


def read_verified_json(path: str | os.PathLike[str], sha256: str | None, *, limit: int = MAX_JSON) -> bytes:
    """The JSON of `path` in its canonical layout (`canonical_json`), once the sha256 of that is the expected one.

    Raises:
        WeightsError: as `read_verified`, or not JSON.
    """
    try:
        content = canonical_json(_read(path, None, limit))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not JSON ({error})") from None
    _check_digest(path, content, sha256)
    return content


def _read(path: str | os.PathLike[str], size: int | None, limit: int) -> bytes:
    try:
        with open_plain(path) as file:
            actual = os.fstat(file.fileno()).st_size
            if size is not None and actual != size:
                raise WeightsError(
                    f"{path} has {actual:,} bytes instead of {size:,}: it is truncated or altered (it was left where "
                    "it is)"
                )
            if actual > limit:
                raise WeightsError(f"{path} has {actual:,} bytes; at most {limit:,} are read")
            return file.read(actual + 1)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error


def _check_digest(path: str | os.PathLike[str], content: bytes, sha256: str | None) -> None:
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256:
        raise WeightsError(
            f"{path} is not the expected file: its sha256 is {digest} instead of {sha256} (it was left where it is)"
        )


def read_header(content: bytes, name: str) -> dict[str, Any]:
    """The JSON header of a safetensors file; WeightsError where `content` (of the file `name`) is none."""
    # A safetensors header of 640, 896, ... bytes begins with the same bytes as a pickle, but its ninth byte is a brace.
    if content.startswith(_PICKLE_MARKS) and content[8:9] != b"{":
        raise WeightsError(f"{name} is a pickle or a zip archive, not a safetensors file; it was not loaded")
    length = int.from_bytes(content[:8], "little")
    if len(content) < 10 or length > min(len(content) - 8, _MAX_HEADER):
        raise WeightsError(f"{name} is not a safetensors file: its header claims {length:,} of {len(content):,} bytes")
    try:
        header = parse_json(content[8 : 8 + length].decode())
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{name} is not a safetensors file: its header is not JSON ({error})") from None
    if not isinstance(header, dict):
        raise WeightsError(f"{name} is not a safetensors file: its header is not a JSON object")
    return header


def read_metadata(content: bytes, name: str) -> dict[str, str]:
    """The metadata of a safetensors file (strings only)."""
    metadata = read_header(content, name).get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise WeightsError(f"{name}: the metadata of a safetensors file maps names to strings")
    return metadata


def read_tensors(content: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        WeightsError: not a safetensors file, tensors that overlap, lie outside the file or hold infinities or NaN.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    read_header(content, name)
    try:
        tensors: dict[str, Tensor] = load(content)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise WeightsError(f"{name} is not a valid safetensors file: {error}") from error
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"{name}: tensor {key!r} is not finite")
    return tensors


def serialize(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file: the same tensors and metadata always give the same bytes.

    Raises:
        InvalidInputError: a tensor that is neither finite float32 nor int64 (BatchNorm's counters).
    """
    return b"".join(_parts(tensors, metadata))


def sha256_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """sha256 of `serialize`'s file, without building it; the same errors."""
    digest = hashlib.sha256()
    for part in _parts(tensors, metadata):
        digest.update(part)
    return digest.hexdigest()


def _parts(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None) -> Iterator[bytes]:
    import torch

    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    parts, offset = [], 0
    kinds = {torch.int64: ("I64", "<i8"), torch.float32: ("F32", "<f4")}
    for name in sorted(tensors, key=lambda n: (tensors[n].dtype != torch.int64, n)):  # 8-byte numbers first: aligned
        if tensors[name].is_meta:
            raise InvalidInputError(f"tensor {name!r} is on the meta device: it has no numbers to write")
        tensor = tensors[name].detach().to("cpu")
        if tensor.dtype not in kinds or not bool(torch.isfinite(tensor).all()):
            raise InvalidInputError(f"tensor {name!r} ({tensor.dtype}) is not finite float32, as weights must be")
        dtype, numbers = kinds[tensor.dtype]
        part = tensor.contiguous().numpy().astype(numbers, copy=False).tobytes()
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [offset, offset + len(part)]}
        parts.append(part)
        offset += len(part)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    yield from parts


def write_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> tuple[str, int]:
    """Writes tensors to `path` atomically and deterministically; returns (sha256, size) for the registry."""
    content = serialize(tensors, metadata)
    write_atomically(Path(path), content)
    return hashlib.sha256(content).hexdigest(), len(content)
