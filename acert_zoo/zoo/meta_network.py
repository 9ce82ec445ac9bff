"""A record's architecture without its weights, and whether given tensors are exactly the ones it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from acert_zoo.errors import InvalidInputError, UnknownNameError
from acert_zoo.network import architectures
from acert_zoo.network.tracing import trace
from acert_zoo.zoo.model_info import ModelInfo


def network_without_weights(info: ModelInfo, error: type[Exception]) -> nn.Module:
    """The record's architecture on the meta device: shapes without memory, so that absurd sizes cost nothing."""
    try:
        with torch.device("meta"):
            return architectures.build(info.arch, **info.arch_kwargs)
    except UnknownNameError:
        raise
    except (InvalidInputError, TypeError, ValueError, RuntimeError, OverflowError, AttributeError) as cause:
        raise error(f"{info.name}: the architecture cannot be built: {cause}") from cause


def multiply_adds(info: ModelInfo) -> int:
    """Multiplications, each with its addition, of convolutions and linear layers for one image."""
    return trace(network_without_weights(info, InvalidInputError).eval()).multiply_adds(info.arch_kwargs["input_shape"])


def check_tensors(wanted: nn.Module, tensors: Mapping[str, Tensor], source: str, error: type[Exception]) -> None:
    """Names, shapes and dtypes, all of them: load_state_dict alone would convert dtypes silently."""
    expected = wanted.state_dict()
    missing, unexpected = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or unexpected:
        raise error(
            f"{source} does not fit its architecture: missing tensors {_some(missing)}; unexpected {_some(unexpected)}"
        )
    for name, place in expected.items():
        got = tensors[name]
        if got.shape != place.shape or got.dtype != place.dtype:
            raise error(
                f"{source} does not fit its architecture: tensor {name!r} is {got.dtype} {tuple(got.shape)} instead of "
                f"{place.dtype} {tuple(place.shape)}"
            )


def _some(names: Sequence[str]) -> str:
    return (", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")) or "none"
