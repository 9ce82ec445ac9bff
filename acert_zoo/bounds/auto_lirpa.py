"""CROWN-family margin bounds through auto-LiRPA (Xu et al. 2020, arXiv 2002.12920): tighter than intervals, slower.

- `crown-ibp`: interval bounds inside, one backward pass for the margins (Zhang et al. 2020, arXiv 1906.06316).
- `crown`: a backward pass for every neuron whose sign is open, too (Zhang et al. 2018, arXiv 1811.00866).
- `alpha-crown`: `crown`, then the lower slopes of the last pass are optimised (Xu et al. 2021, arXiv 2011.13824).

For every class the larger of the method's bound and the interval bound counts: neither dominates the other; none counts
for more than the margin that the network has at a corner of the box. The search for the radius is `crown_radius.py`'s.
auto-LiRPA computes in floating point, rounding to nearest.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from acert_zoo.bounds import auto_lirpa_compat
from acert_zoo.bounds.auto_lirpa_module import LirpaModule, averages_as_convolutions
from acert_zoo.bounds.ibp import input_box
from acert_zoo.errors import InvalidInputError, UnsupportedLayerError
from acert_zoo.network.graph import Network
from acert_zoo.rounding import BoundMethod

# What auto-LiRPA raises for graphs that one of its methods cannot handle, or that are too large for it.
FAILURES = (RuntimeError, IndexError, KeyError, AssertionError, MemoryError, TypeError, ValueError, AttributeError)
_LIRPA_NAMES = {
    BoundMethod.IBP: "IBP",
    BoundMethod.CROWN_IBP: "CROWN-IBP",
    BoundMethod.CROWN: "CROWN",
    BoundMethod.ALPHA_CROWN: "CROWN-Optimized",
}
_OPTIMIZE = {"iteration": 20, "lr_alpha": 0.1}


class LirpaBounds:
    """Margin bounds of one network through auto-LiRPA, in `dtype`.

    Raises:
        MissingDependencyError: auto-LiRPA is not installed.
        UnsupportedLayerError: auto-LiRPA cannot convert the network.
    """

    def __init__(self, network: Network, input_shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
        if dtype not in (torch.float32, torch.float64):
            raise InvalidInputError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
        self.network = network.to(torch.float64).fold_batchnorm().to(dtype)
        module = LirpaModule(averages_as_convolutions(self.network, input_shape)).eval()
        self._set(module, self.network.num_classes, input_shape, dtype)

    def _set(self, module: Any, num_classes: int, input_shape: Sequence[int], dtype: torch.dtype) -> None:
        """`module` takes what its method `box` makes of pixels, and returns logits [N, num_classes]."""
        self.library = auto_lirpa_compat.load()
        self.module, self.num_classes = module, num_classes
        self.dtype, self.input_shape = dtype, tuple(input_shape)
        self._bounded: dict[bool, Any] = {}

    def margins(self, images: Tensor, labels: Tensor, eps: Tensor | float, method: str) -> Tensor:
        """Bounds [N], float64, of min over t != y of f_y - f_t on B(x, eps); NaN where auto-LiRPA gave none.

        Args:
            images: pixels [N, C, H, W] in [0, 1]; labels: int64 [N]; eps: one number or [N].
            method: "ibp", "crown-ibp", "crown" or "alpha-crown".
        """
        method = BoundMethod.among(method, _LIRPA_NAMES)
        x = images.detach().to(self.dtype).contiguous()
        sizes = torch.as_tensor(eps, dtype=self.dtype).expand(len(x))
        box = input_box(x, sizes)
        lower, upper = (t.contiguous() for t in self.module.box(box.lower, box.upper))
        others = torch.arange(self.num_classes).expand(len(x), -1)
        others = others[others != labels.unsqueeze(1)].view(len(x), -1)
        identity = torch.eye(self.num_classes, dtype=self.dtype)
        rows = identity[labels].unsqueeze(1) - identity[others]
        optimized = method == BoundMethod.ALPHA_CROWN
        with auto_lirpa_compat.quiet(), _default_dtype(self.dtype), torch.set_grad_enabled(optimized):
            bounded = self._module(optimized=optimized)
            norm = self.library.PerturbationLpNorm(norm=math.inf, eps=sizes.max().item(), x_L=lower, x_U=upper)
            x = self.library.BoundedTensor((lower + upper) / 2, norm)
            arguments = {"x": (x,), "C": rows, "bound_upper": False}
            bound: Tensor = bounded.compute_bounds(**arguments, method="IBP")[0]
            if method != BoundMethod.IBP:  # both bounds are true for every class: the larger counts
                if method != BoundMethod.CROWN_IBP:  # inner boxes: the intersection with interval bounds
                    arguments["reference_bounds"] = _inner_boxes(bounded)
                if optimized:  # the inner boxes are those of crown: only the last pass is optimised
                    bounded.compute_bounds(**arguments, method="CROWN")
                    name = auto_lirpa_compat.inner_boxes_argument(self.library.BoundedModule)
                    arguments[name] = _inner_boxes(bounded)
                bound = torch.fmax(bound, bounded.compute_bounds(**arguments, method=_LIRPA_NAMES[method])[0])
        found = self._found(lower, upper, labels).double()
        return torch.where(found < torch.inf, torch.minimum(bound.detach().double().amin(1), found), torch.nan)

    def _found(self, lower: Tensor, upper: Tensor, labels: Tensor) -> Tensor:
        """Margins [N] that the network has at one corner of each box, to which the gradient leads, or in its middle.

        No true bound is above them; a false one seldom survives them.
        """

        def margins(points: Tensor) -> Tensor:
            logits: Tensor = self.module(points)
            others = logits.scatter(1, labels.unsqueeze(1), -math.inf).amax(1)
            return logits.gather(1, labels.unsqueeze(1)).squeeze(1) - others

        with torch.enable_grad():
            middle = ((lower + upper) / 2).requires_grad_()
            first = margins(middle)
            (slope,) = torch.autograd.grad(first.sum(), middle)
        with torch.no_grad():
            return torch.minimum(first.detach(), margins(torch.where(slope > 0, lower, upper)))

    def _module(self, *, optimized: bool) -> Any:
        """Optimised slopes stay in a BoundedModule, so alpha-crown has one of its own."""
        if optimized not in self._bounded:
            example = torch.zeros(1, *self.input_shape, dtype=self.dtype)
            # minimum_sparsity: 0.3 mixes up sparse and dense slopes where more than that share of a layer is open.
            options = {"conv_mode": "patches", "minimum_sparsity": 1.0, "optimize_bound_args": dict(_OPTIMIZE)}
            try:
                bounded = self.library.BoundedModule(self.module, example, bound_opts=options, device="cpu")
            except Exception as error:  # the library raises many kinds
                raise UnsupportedLayerError(f"auto-LiRPA cannot convert the network: {error}") from error
            self._bounded[optimized] = bounded
        return self._bounded[optimized]


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """auto-LiRPA makes its slopes in torch's default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _inner_boxes(bounded: Any) -> dict[str, list[Tensor]]:
    """What the last evaluation found for the input of each ReLU, in the form that auto-LiRPA takes it."""
    inputs = [relu.inputs[0] for relu in bounded.relus]
    return {node.name: [node.lower.detach().clone(), node.upper.detach().clone()] for node in inputs}
