"""Lower precision of a training step: the affine layers and what lies between them; statistics, the head, losses and
master weights stay float32. Certification never sees it, and neither does validation.

`bfloat16` is a dtype of activations and layers (`lowered`); `tf32` is a way in which a GPU multiplies float32 numbers,
with 11 bits of each factor (`products`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from acert_zoo.bounds.ibp import Ball
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Affine
from training.compute import kernels

PRECISIONS = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}  # and their dtypes


@contextmanager
def products(precision: str, device: torch.device) -> Iterator[None]:
    """Float32 products and convolutions on a GPU as `precision` says within the block; others are as they are."""
    if precision != "tf32" or device.type != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = True
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def lowered(network: Network, dtype: torch.dtype) -> Network:
    """`network` with all affine layers but the head in `dtype`, differentiable; itself where they are in it already."""
    return Network(
        tuple(
            dataclasses.replace(step, weight=step.weight.to(dtype), bias=step.bias.to(dtype))
            if isinstance(step, Affine) and step is not network.head and step.weight.dtype != dtype
            else step
            for step in network.steps
        )
    )


def logits(network: Network, images: Tensor) -> Tensor:
    """Logits [N, K] of a network whose layers may be of several dtypes."""
    values = [images]
    for step in network.steps:
        inputs = [values[i] for i in step.inputs]
        if isinstance(step, Affine):
            inputs = [x.to(step.weight.dtype) for x in inputs]
        values.append(step(*inputs))
    return values[-1]


class _ReLUBox(torch.autograd.Function):
    """`kernels.relu_box` on activations; keeps its outputs alone, which the next layer keeps as well."""

    @staticmethod
    def forward(ctx: Any, center: Tensor, radius: Tensor, run: Callable[..., Any]) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        c, r = run(kernels.relu_box)(kernels.rows(center), kernels.rows(radius))
        ctx.save_for_backward(c, r)
        ctx.run = run
        return kernels.unrows(c, center), kernels.unrows(r, center)

    @staticmethod
    def backward(ctx: Any, grad_center: Tensor, grad_radius: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        grads = kernels.rows(grad_center), kernels.rows(grad_radius)
        c, r = ctx.run(kernels.relu_box_gradient)(*ctx.saved_tensors, *grads)
        return kernels.unrows(c, grad_center), kernels.unrows(r, grad_radius), None


def relu_rule(compile: bool) -> Callable[[Ball], Ball]:
    """The `relu` of `propagate`: its gradient is that of `acert_zoo.bounds.ibp`, its passes over memory are fewer."""
    run = kernels.compiled if compile else kernels.plain

    def relu(box: Ball) -> Ball:
        center, radius = _ReLUBox.apply(box.center, box.radius, run)
        return Ball(center, radius, box.scale)

    return relu
