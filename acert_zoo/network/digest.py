"""The digests by which certificates name what they are about: of a network, or of a module that is more than one."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable

from torch import Tensor, nn

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


def modules_sha256(modules: Iterable[nn.Module], settings: str) -> str:
    """Digest of the tensors of some modules, under their names and in their order, and of settings beside them."""
    digest = hashlib.sha256(settings.encode())
    for module in modules:
        for name, tensor in module.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
