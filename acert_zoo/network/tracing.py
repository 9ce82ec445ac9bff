"""Any torch module as a `Network`: `trace` (the graph alone) and `prepare` (for other people's modules, with checks).

Zoo models and plain `nn.Sequential` models are read layer by layer. Other modules are traced by torch.fx, which runs
`forward` once on a symbolic input; its operations become the network's steps (`fx_trace.py`; the
operations are in `trace_operations.py` and `trace_tables.py`). Only
what is listed there is accepted: an operation that no bound covers is an error with its name, never an approximation.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from acert_zoo.errors import InvalidInputError, UnsoundSettingError, UnsupportedLayerError
from acert_zoo.network import architectures
from acert_zoo.network import trace_operations as ops
from acert_zoo.network.fx_trace import apply_module, handler_of, trace_fx
from acert_zoo.network.graph import Linear, Network, Normalize, Step
from acert_zoo.network.trace_operations import Builder, Value

__all__ = ["NetworkModule", "prepare", "trace"]


class NetworkModule(nn.Module):
    """A `Network` as a torch module, in eval mode: raw pixels [N, C, H, W] in, logits [N, K] out."""

    def __init__(self, network: Network, input_shape: Sequence[int]) -> None:
        super().__init__()
        self.network, self.input_shape = network.detach(), tuple(input_shape)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


def trace(model: nn.Module, input_shape: Sequence[int] | None = None) -> Network:
    """The `Network` of a torch module, with its live parameters (bounds of it are differentiable).

    Args:
        model: a classifier whose forward takes one tensor [N, C, H, W] and returns logits [N, K].
        input_shape: (C, H, W); needed where reshapes or pooling depend on it (default: `model.input_shape`, if any).

    Raises:
        UnsupportedLayerError: naming the first operation that no bound here covers.
        InvalidInputError: the input shape is needed and not given, or does not fit the layers.
    """
    if input_shape is None:
        input_shape = getattr(model, "input_shape", None)
    model = _unwrap(model)
    if isinstance(model, NetworkModule):
        return model.network
    if input_shape is None:
        input_shape = getattr(model, "input_shape", None)
    builder = Builder(input_shape)
    layers = _plain_layers(model)
    if layers is None:
        output = trace_fx(model, builder)
    else:
        output = builder.input
        for name, layer in layers:
            output = apply_module(builder, name, layer, output)
    return finish(builder, output)


def prepare(
    model: nn.Module,
    input_shape: Sequence[int],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    *,
    tolerance: float = 1e-5,
) -> Network:
    """The detached `Network`, of raw pixels in [0, 1], of a module that takes normalised images; checked against it.

    Args:
        model: a classifier in eval mode; its input is (pixels - mean) / std where these are given, else raw pixels.
        input_shape: (C, H, W) of one image.
        mean, std: per-channel constants (length C, or one number), std > 0.
        tolerance: largest allowed |network - module| on random images, relative to max(1, max |logit|).

    Raises:
        InvalidInputError: arguments of the wrong form; a module that does not take such images, or does not return
            logits [N, K]; a module whose outputs differ from the traced network's, or between equal calls.
        UnsoundSettingError: a module in train mode.
        UnsupportedLayerError: see `trace`.
    """
    if not isinstance(model, nn.Module):
        raise InvalidInputError(f"the model must be a torch.nn.Module, got {type(model).__name__}")
    shape = tuple(input_shape)
    if len(shape) != 3 or any(type(v) is not int or v < 1 for v in shape):
        raise InvalidInputError(f"input_shape must be (C, H, W), three positive integers, got {input_shape!r}")
    training = [n or "the model" for n, m in model.named_modules() if m.training and (n == "" or not _inert(m))]
    if training:
        raise UnsoundSettingError(f"{training[0]} is in train mode; call model.eval() before certification")
    dtypes = {t.dtype for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()}
    if not dtypes <= {torch.float32, torch.float64} or len(dtypes) > 1:
        raise InvalidInputError(f"weights must all be float32 or all float64, got {sorted(map(str, dtypes))}")
    dtype = next(iter(dtypes), torch.float32)
    normalize = channel_constants(shape[0], mean, std)
    _check_module(model, shape, normalize, dtype)
    network = trace(model, shape).detach()
    if normalize is not None:
        moved = (Normalize(inputs=(0,), name="normalize", mean=normalize[0], std=normalize[1]),)
        network = Network(moved + tuple(_renumber(s, {i: i + 1 for i in s.inputs}) for s in network.steps))
    _compare(model, network, shape, normalize, dtype, tolerance)
    return network


def _unwrap(model: nn.Module) -> nn.Module:
    if isinstance(model, nn.DataParallel):
        return _unwrap(model.module)
    inner = getattr(model, "classifier", None)
    if type(model).__module__.startswith("acert_zoo.") and isinstance(inner, nn.Module):
        return _unwrap(inner)
    return model


def _plain_layers(model: nn.Module) -> list[tuple[str, nn.Module]] | None:
    """(name, layer) of a chain of known layers; None where the module is anything else."""
    root = model.layers if isinstance(model, architectures.CNN) else model
    layers = _flat_layers(root, "layers" if root is not model else "")
    return layers if all(handler_of(layer) for _, layer in layers) else None


def _flat_layers(module: nn.Module, prefix: str) -> list[tuple[str, nn.Module]]:
    if type(module) is not nn.Sequential:
        return [(prefix, module)]
    return [
        item
        for name, child in module.named_children()
        for item in _flat_layers(child, f"{prefix}.{name}" if prefix else name)
    ]


def finish(builder: Builder, output: Value) -> Network:
    """Drops steps that the output does not need; a network that ends otherwise than in Linear gets an identity head."""
    if output.index and not isinstance(builder.steps[output.index - 1], Linear) and output.shape is not None:
        if len(output.shape) != 1:
            raise UnsupportedLayerError(f"the model must return logits [N, K], it returns {output.shape} per image")
        weight = torch.eye(output.shape[0], dtype=_dtype(builder.steps))
        output = ops.linear(builder, "identity", output, weight)
    needed = {output.index}
    for index in range(output.index, 0, -1):
        if index in needed:
            needed.update(builder.steps[index - 1].inputs)
    renumber, kept = {0: 0}, []
    for index, step in enumerate(builder.steps[: output.index], 1):
        if index in needed:
            kept.append(_renumber(step, renumber))
            renumber[index] = len(kept)
    return Network(tuple(kept))


def _dtype(steps: Sequence[Step]) -> torch.dtype:
    return next((t.dtype for s in steps for t in vars(s).values() if isinstance(t, Tensor)), torch.float32)


def _renumber(step: Step, numbers: dict[int, int]) -> Step:
    return dataclasses.replace(step, inputs=tuple(numbers[i] for i in step.inputs))


def _inert(module: nn.Module) -> bool:
    """Whether train mode changes nothing in what the module itself computes."""
    return not isinstance(module, (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd))


def channel_constants(channels: int, mean: Any, std: Any) -> tuple[Tensor, Tensor] | None:
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise InvalidInputError("give both mean and std, or neither")
    out = []
    for what, value in (("mean", mean), ("std", std)):
        try:
            numbers = torch.as_tensor(value, dtype=torch.float64).flatten().tolist()  # of [], [C], [1, C, 1, 1]
        except (TypeError, ValueError, RuntimeError):
            raise InvalidInputError(f"{what} must be numbers, one a channel, got {value!r:.80}") from None
        numbers = numbers * channels if len(numbers) == 1 else numbers
        bad = len(numbers) != channels or not all(math.isfinite(v) for v in numbers)
        if bad or (what == "std" and min(numbers) <= 0):
            want = "positive numbers" if what == "std" else "numbers"
            raise InvalidInputError(f"{what} must be {channels} finite {want}, one a channel, got {value!r}")
        out.append(torch.tensor(numbers, dtype=torch.float32))
    return out[0], out[1]


def random_images(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    smooth = torch.rand(4, *shape, generator=generator)
    return torch.cat([smooth, (smooth > 0.5).float()]).to(dtype)


def _module_logits(model: nn.Module, images: Tensor, normalize: tuple[Tensor, Tensor] | None) -> Any:
    if normalize is not None:
        mean, std = (t.to(images.dtype).view(1, -1, 1, 1) for t in normalize)
        images = (images - mean) / std
    with torch.no_grad():
        return model(images)


def _check_module(model: nn.Module, shape: tuple[int, ...], normalize: Any, dtype: torch.dtype) -> None:
    images = random_images(shape, dtype)
    try:
        logits = _module_logits(model, images, normalize)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise InvalidInputError(
            f"the model does not take images of shape {tuple(images.shape)}: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(images) or logits.shape[1] < 2:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InvalidInputError(f"the model must return logits of shape [{len(images)}, K >= 2], it returned {got}")
    if not bool(torch.isfinite(logits).all()):
        raise InvalidInputError("the model's logits of random images are not finite")
    again, single = _module_logits(model, images, normalize), _module_logits(model, images[:1], normalize)
    size = max(1.0, logits.abs().max().item())
    if (logits - again).abs().max().item() > 1e-4 * size or (logits[:1] - single).abs().max().item() > 1e-4 * size:
        raise InvalidInputError(
            "the model's logits of one image change between calls or with the other images beside it"
        )


def _compare(
    model: nn.Module, network: Network, shape: tuple[int, ...], normalize: Any, dtype: torch.dtype, tolerance: float
) -> None:
    images = random_images(shape, dtype)
    expected, got = _module_logits(model, images, normalize), network(images)
    difference = (expected - got).abs().max().item() if expected.shape == got.shape else math.inf
    limit = tolerance * max(1.0, expected.abs().max().item())
    if not difference <= limit:
        raise InvalidInputError(
            f"the traced network differs from the model by {difference:.3g} on random images (allowed {limit:.3g}): "
            "the model's forward does something that its trace does not show, so nothing can be certified"
        )
