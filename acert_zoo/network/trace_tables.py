"""The tables that `acert_zoo.network.tracing` looks torch's operations up in; the handlers are in
`trace_operations.py`."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from acert_zoo.errors import UnsupportedLayerError
from acert_zoo.network import architectures, graph
from acert_zoo.network import trace_operations as ops
from acert_zoo.network.trace_operations import BATCH, SUPPORTED, Unsupported, Value


def _fixed_batchnorm(b, name, m, x) -> Value:
    """Train mode is allowed: training itself bounds the live network, with statistics that it supplies."""
    return ops.batch_norm(b, name, x, m.running_mean, m.running_var, m.weight, m.bias, eps=m.eps)


def _conv(b, name, m, x) -> Value:
    if m.padding_mode != "zeros":
        raise Unsupported(f"padding_mode={m.padding_mode!r}")
    return ops.conv2d(b, name, x, m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups)


def _avg(b, name, m, x) -> Value:
    return ops.avg_pool2d(
        b, name, x, m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, m.divisor_override
    )


MODULES: dict[type, Callable[..., Value]] = {
    nn.Conv2d: _conv,
    nn.Linear: lambda b, name, m, x: ops.linear(b, name, x, m.weight, m.bias),
    nn.BatchNorm1d: _fixed_batchnorm,
    nn.BatchNorm2d: _fixed_batchnorm,
    nn.ReLU: lambda b, name, m, x: ops.relu(b, name, x),
    nn.Flatten: lambda b, name, m, x: ops.flatten(b, name, x, m.start_dim, m.end_dim),
    nn.Unflatten: lambda b, name, m, x: ops.reshape(
        b, name, x, BATCH, *x.known_shape[: m.dim - 1], *m.unflattened_size, *x.known_shape[m.dim :]
    ),
    nn.MaxPool2d: lambda b, name, m, x: ops.max_pool2d(
        b, name, x, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices
    ),
    nn.AvgPool2d: _avg,
    nn.AdaptiveAvgPool2d: lambda b, name, m, x: ops.adaptive_avg_pool2d(b, name, x, m.output_size),
    nn.AdaptiveMaxPool2d: lambda b, name, m, x: ops.adaptive_max_pool2d(b, name, x, m.output_size, m.return_indices),
    **dict.fromkeys(
        (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout),
        lambda b, name, m, x: ops.dropout(b, name, x, m.p, m.training),
    ),
    nn.Identity: lambda b, name, m, x: x,
    architectures.Normalize: lambda b, name, m, x: b.add(graph.Normalize, name, x, mean=m.mean, std=m.std),
}

FUNCTIONS: dict[Any, Callable[..., Value]] = {
    F.conv2d: ops.conv2d,
    torch.conv2d: ops.conv2d,
    F.linear: ops.linear,
    F.batch_norm: ops.batch_norm,
    F.relu: ops.relu,
    F.relu_: ops.relu,
    torch.relu: ops.relu,
    torch.relu_: ops.relu,
    F.max_pool2d: ops.max_pool2d,
    torch.max_pool2d: ops.max_pool2d,
    F.avg_pool2d: ops.avg_pool2d,
    F.adaptive_avg_pool2d: ops.adaptive_avg_pool2d,
    F.adaptive_max_pool2d: ops.adaptive_max_pool2d,
    **dict.fromkeys((F.dropout, F.dropout1d, F.dropout2d, F.alpha_dropout), ops.dropout),
    torch.flatten: ops.flatten,
    torch.reshape: ops.reshape,
    torch.permute: ops.permute,
    torch.transpose: ops.transpose,
    torch.squeeze: ops.squeeze,
    torch.unsqueeze: ops.unsqueeze,
    torch.cat: ops.cat,
    torch.mean: ops.mean,
    **dict.fromkeys((operator.add, operator.iadd, torch.add), ops.add),
    **dict.fromkeys((operator.sub, operator.isub, torch.sub), ops.sub),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul), ops.mul),
    **dict.fromkeys((operator.truediv, operator.itruediv, torch.div), ops.div),
    **dict.fromkeys((operator.neg, torch.neg), lambda b, name, x: ops.scale(b, name, x, -1.0)),
}

METHODS: dict[str, Callable[..., Value]] = {
    "relu": ops.relu,
    "relu_": ops.relu,
    "flatten": ops.flatten,
    "reshape": ops.reshape,
    "view": ops.reshape,
    "permute": ops.permute,
    "transpose": ops.transpose,
    "squeeze": ops.squeeze,
    "unsqueeze": ops.unsqueeze,
    "mean": ops.mean,
    **dict.fromkeys(("add", "add_"), ops.add),
    **dict.fromkeys(("sub", "sub_"), ops.sub),
    **dict.fromkeys(("mul", "mul_"), ops.mul),
    **dict.fromkeys(("div", "div_"), ops.div),
    **dict.fromkeys(("contiguous", "clone", "detach", "float", "double"), ops.identity),
}

MODIFYING = {F.relu_, torch.relu_, operator.iadd, operator.isub, operator.imul, operator.itruediv}


def unsupported(name: str, what: str, why: object = "") -> UnsupportedLayerError:
    reason = f": {why}" if str(why) else ""
    return UnsupportedLayerError(f"layer {name!r} ({what}) is not supported{reason}; supported: {SUPPORTED}")
