"""Muon: momentum, made orthogonal before the step (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).

torch.optim.Muon takes matrices alone and leaves the other parameters to a second optimiser, which schedule, clipping
and saved state would each have to know. Here both rules are one optimiser, convolution weights are flattened to
[outputs, inputs * kh * kw], and a step is relative to the norm of the weight and keeps it, since the BatchNorm behind
every such layer makes the network's function independent of that norm. (Steps that may change it lengthen the weight
each time: in 30,000 of them it grew by a factor of 1e10, and its gradient shrank by as much.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

RELATIVE_STEP = 6.0  # norm of a step in units of lr times the norm of the weight: lr as large as Adam's then serves
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # a, b, c of the published quintic x -> a x + b x^3 + c x^5
ITERATIONS = 5
TINY = 1e-30  # under any norm that is not 0: nothing is divided by 0


class Muon(torch.optim.Optimizer):
    """Groups with `orthogonal` true take orthogonalised Nesterov momentum, the others Adam (betas[0] is the momentum).

    Args:
        params: groups of parameters, those of `orthogonal` groups with at least two dimensions.
        lr: an orthogonal step has the norm 6 lr |W|, and W is scaled back to its norm; Adam's is its own.
        weight_decay: decoupled, lr * weight_decay * W, in every group that sets it.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 4e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "orthogonal": False,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if group["weight_decay"]:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                (self._orthogonal_step if group["orthogonal"] else self._adam_step)(p, group)
        return loss

    def _orthogonal_step(self, p: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        momentum: Tensor = state["momentum"].lerp_(p.grad, 1 - group["momentum"])  # type: ignore[arg-type]
        ahead = p.grad.lerp(momentum, group["momentum"])  # type: ignore[union-attr]
        update = orthogonalized(ahead.flatten(1)).reshape(p.shape)
        norm = p.norm()
        p.sub_(update * (group["lr"] * RELATIVE_STEP * norm / update.norm().clamp(min=TINY)))
        p.mul_(norm / p.norm().clamp(min=TINY))

    def _adam_step(self, p: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["step"] = 0
            state["mean"], state["square"] = torch.zeros_like(p), torch.zeros_like(p)
        first, second = group["betas"]
        state["step"] += 1
        state["mean"].lerp_(p.grad, 1 - first)  # type: ignore[arg-type]
        state["square"].mul_(second).addcmul_(p.grad, p.grad, value=1 - second)  # type: ignore[arg-type]
        spread = state["square"].sqrt() / (1 - second ** state["step"]) ** 0.5 + group["eps"]
        p.addcdiv_(state["mean"], spread, value=-group["lr"] / (1 - first ** state["step"]))


def orthogonalized(matrix: Tensor) -> Tensor:
    """About U V^T of matrix = U S V^T [m, n]: five Newton-Schulz steps, which bring singular values into 0.7 .. 1.2.

    With the Gram matrix G = X X^T of the shorter side, every step is X -> (a + b G + c G^2) X. The polynomials are
    multiplied on that side, m x m, so that the long side is met twice and not ten times.
    """
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.abs().amax().clamp(min=TINY)  # so that no square falls below float32's range
    x = x / x.norm().clamp(min=TINY)
    a, b, c = NEWTON_SCHULZ
    gram = x @ x.T
    one = torch.eye(len(x), dtype=x.dtype, device=x.device)
    total = one
    for _ in range(ITERATIONS):
        factor = a * one + b * gram + c * (gram @ gram)
        total = factor @ total
        gram = factor @ gram @ factor
    out = total @ x
    return out.T if matrix.shape[0] > matrix.shape[1] else out
