"""Any torch module as a `Network`: `trace`, the graph alone (`reading.py` checks it against the module).

Modules of known layers are read as they stand (`torch_modules/known_layers.py`), all others through torch.export
(`module_export.py` and `aten_reader.py` there). An operation that no bound covers is an error with its name, never an
approximation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from acert_zoo.errors import InvalidInputError, UnsupportedLayerError
from acert_zoo.network.building import operations as ops
from acert_zoo.network.building.builder import Builder, Value
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Linear, Step
from acert_zoo.network.torch_modules import known_layers

__all__ = ["NetworkModule", "trace"]


class NetworkModule(nn.Module):
    """A `Network` as a torch module, in eval mode: raw pixels [N, C, H, W] in, logits [N, K] out."""

    def __init__(self, network: Network, input_shape: Sequence[int]) -> None:
        super().__init__()
        self.network, self.input_shape = network.detach(), tuple(input_shape)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


_NETWORK_MODULES: set[type] = {NetworkModule}


def network_module(kind: type) -> type:
    """Declares that the attribute `network` of exactly this class is what its forward is held against."""
    _NETWORK_MODULES.add(kind)
    return kind


def trace(model: nn.Module, input_shape: Sequence[int] | None = None) -> Network:
    """The `Network` of a torch module, with its live parameters (bounds of it are differentiable).

    Args:
        model: a classifier whose forward takes one tensor [N, C, H, W] and returns logits [N, K].
        input_shape: (C, H, W); needed for all but modules of known layers (default: `model.input_shape`, if any).

    Raises:
        UnsupportedLayerError: naming the first operation that no bound here covers.
        InvalidInputError: the input shape is needed and not given, or does not fit the layers.
    """
    if input_shape is None:
        input_shape = getattr(model, "input_shape", None)
    if type(model) in _NETWORK_MODULES and known_layers.is_plain(model):
        return model.network  # type: ignore[return-value]
    found = known_layers.read(model, input_shape)
    if found is None:
        found = _exported(model, input_shape)
    return finish(*found)


def _exported(model: nn.Module, input_shape: Sequence[int] | None) -> tuple[Builder, Value]:
    if callable(getattr(model, "prover", None)):
        raise UnsupportedLayerError(
            f"a {type(model).__name__} is no single network, so it has no trace and no ONNX form; its members have"
        )
    if input_shape is None:
        raise InvalidInputError("this network needs its input shape to be traced; give input_shape=(C, H, W)")
    from acert_zoo.network.torch_modules.aten_reader import read_program
    from acert_zoo.network.torch_modules.module_export import export

    shape = tuple(input_shape)
    dtype = floating_dtype(model)
    builder = Builder(shape, dtype)
    return builder, read_program(export(model, shape, dtype), model, builder)


def floating_dtype(model: nn.Module) -> torch.dtype:
    """The one dtype of the module's weights, float32 or float64; float32 where there are none."""
    if type(model) in _NETWORK_MODULES:
        return model.network.head.weight.dtype  # type: ignore[union-attr, return-value]
    dtypes = {t.dtype for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()}
    if not dtypes <= {torch.float32, torch.float64} or len(dtypes) > 1:
        raise InvalidInputError(f"weights must all be float32 or all float64, got {sorted(map(str, dtypes))}")
    return next(iter(dtypes), torch.float32)


def finish(builder: Builder, output: Value) -> Network:
    """Drops steps that the output does not need; a network that ends otherwise than in Linear gets an identity head."""
    if output.index and not isinstance(builder.steps[output.index - 1], Linear) and output.shape is not None:
        if len(output.shape) != 1:
            raise UnsupportedLayerError(f"the model must return logits [N, K], it returns {output.shape} per image")
        weight = torch.eye(output.shape[0], dtype=_dtype(builder), device="cpu")
        output = ops.linear(builder, "identity", output, weight)
    needed = {output.index}
    for index in range(output.index, 0, -1):
        if index in needed:
            needed.update(builder.steps[index - 1].inputs)
    numbers, kept = {0: 0}, []
    for index, step in enumerate(builder.steps[: output.index], 1):
        if index in needed:
            kept.append(renumber(step, numbers))
            numbers[index] = len(kept)
    return Network(tuple(kept))


def _dtype(builder: Builder) -> torch.dtype:
    return next((t.dtype for s in builder.steps for t in vars(s).values() if isinstance(t, Tensor)), builder.dtype)


def renumber(step: Step, numbers: dict[int, int]) -> Step:
    """The step with its inputs renamed."""
    return dataclasses.replace(step, inputs=tuple(numbers[i] for i in step.inputs))
