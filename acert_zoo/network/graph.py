"""A classifier as a graph of affine and monotone steps: the one form in which bounds see a network.

`Network` is a tuple of steps in execution order. Value 0 is the network input; step i reads the values named by its
`inputs` and produces value i + 1. The last step is always a `Linear` layer, the *head*, because margins are bounded
through rows W_y - W_t of that layer (Gowal et al. 2018, section 3, "elision of the last layer").

A `Network` is a snapshot: steps cache |W|. After the weights change, trace or fold again.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from acert_zoo.errors import UnsupportedLayerError
from acert_zoo.network.layers import Affine, BatchNorm, Linear, ReLU, Step

Statistics = Mapping[int, tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Network:
    """A graph of steps ending in a Linear head; see the module's docstring."""

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        if not self.steps or not isinstance(self.steps[-1], Linear):
            last = type(self.steps[-1]).__name__ if self.steps else "nothing"
            raise UnsupportedLayerError(
                f"the network must end in a Linear layer that gives the logits; it ends in {last}"
            )

    @property
    def head(self) -> Linear:
        return self.steps[-1]  # type: ignore[return-value]

    @property
    def num_classes(self) -> int:
        return self.head.weight.shape[0]

    @cached_property
    def last_use(self) -> dict[int, int]:
        """For each value that is read, the index of the last step that reads it."""
        return {i: index for index, step in enumerate(self.steps) for i in step.inputs}

    @cached_property
    def overwritable(self) -> frozenset[int]:
        """Indices of the ReLUs that alone read what an affine step has computed: they may work in place."""
        read = Counter(i for step in self.steps for i in step.inputs)
        return frozenset(
            index
            for index, step in enumerate(self.steps)
            if isinstance(step, ReLU)
            and read[step.inputs[0]] == 1
            and step.inputs[0] > 0
            and isinstance(self.steps[step.inputs[0] - 1], Affine)
        )

    def run(self, x: Tensor) -> list[Tensor]:
        """All values, index 0 being `x` itself ([N, C, H, W])."""
        values = [x]
        for step in self.steps:
            values.append(step(*(values[i] for i in step.inputs)))
        return values

    def __call__(self, x: Tensor) -> Tensor:
        """Logits [N, K] of raw pixels [N, C, H, W] in [0, 1]."""
        return self.run(x)[-1]

    def multiply_adds(self, shape: Sequence[int]) -> int:
        """Multiplications, each with its addition, of the affine layers for one image of `shape`; any device."""
        values = self.run(torch.zeros(1, *shape, device=self.head.weight.device))
        steps = enumerate(self.steps, start=1)
        return sum(values[i].numel() * step.inner_length for i, step in steps if isinstance(step, Affine))

    def map_tensors(self, f: Any) -> Network:
        """A copy whose every tensor t is f(t)."""
        return Network(
            tuple(
                dataclasses.replace(
                    s,
                    **{
                        k.name: f(getattr(s, k.name))
                        for k in dataclasses.fields(s)
                        if isinstance(getattr(s, k.name), Tensor)
                    },
                )
                for s in self.steps
            )
        )

    def detach(self) -> Network:
        """A copy without gradient (a new snapshot)."""
        return self.map_tensors(lambda t: t.detach())

    def to(self, dtype: torch.dtype) -> Network:
        """A detached copy in another floating dtype (exact from float32 to float64)."""
        return self.map_tensors(lambda t: t.detach().to(dtype))

    def fold_batchnorm(self, statistics: Statistics | None = None) -> Network:
        """A network without the BatchNorm steps that directly follow an affine step.

        W' = s W and b' = s b + t, with s, t of `BatchNorm.scale_shift`. `statistics` maps the index of a BatchNorm
        step to the (mean, var) to use in place of its own, with gradient (training: those of the clean batch).
        Other BatchNorm steps stay as they are.
        """
        statistics = statistics or {}
        used = [i for step in self.steps for i in step.inputs]
        renumber: dict[int, int] = {0: 0}
        out: list[Step] = []
        for index, step in enumerate(self.steps):
            source = renumber[step.inputs[0]]
            if isinstance(step, BatchNorm):
                mean, var = statistics.get(index, (step.mean, step.var))
                before = out[source - 1] if source else None
                if isinstance(before, Affine) and used.count(step.inputs[0]) == 1:
                    scale, shift = step.scale_shift(mean, var)
                    weight = before.weight * scale.view((-1,) + (1,) * (before.weight.dim() - 1))
                    out[source - 1] = dataclasses.replace(before, weight=weight, bias=before.bias * scale + shift)
                    renumber[index + 1] = source
                    continue
                step = dataclasses.replace(step, mean=mean, var=var)
            out.append(dataclasses.replace(step, inputs=tuple(renumber[i] for i in step.inputs)))
            renumber[index + 1] = len(out)
        return Network(tuple(out))


def same_network(a: Network, b: Network) -> bool:
    """Whether two networks have equal steps: kinds, inputs, settings and every number."""
    if [type(step) for step in a.steps] != [type(step) for step in b.steps]:
        return False
    for first, second in zip(a.steps, b.steps, strict=True):
        for field in dataclasses.fields(first):
            x, y = getattr(first, field.name), getattr(second, field.name)
            if isinstance(x, Tensor) or isinstance(y, Tensor):
                if not (isinstance(x, Tensor) and isinstance(y, Tensor)) or x.dtype != y.dtype or x.device != y.device:
                    return False
                if not torch.equal(x, y):
                    return False
            elif x != y:
                return False
    return True
