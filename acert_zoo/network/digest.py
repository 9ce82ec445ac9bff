"""The digest of a network, by which certificates name it."""

from __future__ import annotations

import dataclasses
import hashlib

from torch import Tensor

from acert_zoo.network.graph import Network


def network_sha256(network: Network) -> str:
    """Digest of a network as bounds see it: every step's kind, inputs, settings and tensors (little endian)."""
    digest = hashlib.sha256()
    for step in network.steps:
        digest.update(type(step).__name__.encode())
        for field in sorted(dataclasses.fields(step), key=lambda f: f.name):
            value = getattr(step, field.name)
            if isinstance(value, Tensor):
                array = value.detach().cpu().contiguous().numpy()
                array = array.astype(array.dtype.newbyteorder("<"), copy=False)
                digest.update(f"|{field.name}:{array.dtype.str}{list(array.shape)}".encode())
                digest.update(array.tobytes())
            elif field.name != "name":
                digest.update(f"|{field.name}={value!r}".encode())
    return digest.hexdigest()
