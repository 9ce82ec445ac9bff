"""`OnnxModel`: the network of an ONNX file as a torch module, whose answers are the file's own."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from acert_zoo.errors import InvalidInputError
from acert_zoo.network.agreement import normalized
from acert_zoo.network.onnx.reader import Graph
from acert_zoo.network.onnx.runtime import Runtime
from acert_zoo.network.properties import Property
from acert_zoo.network.tracing import NetworkModule, network_module

_WITHIN = 32.0  # times the measured rounding of the network: another order of summation is off by a few times of it
_RELATIVE = {torch.float32: 2.0**-20, torch.float64: 2.0**-49}  # of an output: its own rounding, and a few operations'


@network_module
class OnnxModel(NetworkModule):
    """An ONNX file in eval mode: images [N, *input_shape] in, outputs [N, K] out.

    Where onnxruntime is installed, `forward` gives what the file computes there, image for image; gradients are the
    network's. So whoever compares a module with its network compares the file with what was read of it.

    Attributes:
        network: what was read, of images of `input_shape` (no batch axis).
        order_only: whether a softmax at the file's end was left out: outputs are what it was applied to, and only
            their order is the file's.
    """

    def __init__(self, graph: Graph, runtime: Runtime) -> None:
        nn.Module.__init__(self)
        self.network, self.input_shape, self.order_only = graph.network.detach(), graph.input_shape, graph.order_only
        self._permutation, self._normalize = graph.permutation, graph.normalize
        self._runtime, self._wide = runtime, False
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [N, K] of images."""
        outputs = self.network(x)
        if not (self._runtime.fast or self._wide):
            return outputs
        found: Tensor = _Replaced.apply(outputs, self.file_outputs(x))  # type: ignore[no-untyped-call]
        return found

    def file_outputs(self, x: Tensor) -> Tensor:
        """What the file itself computes, [N, K] in its own type; errors as `Runtime.run`."""
        points = normalized(x.detach().cpu(), self._normalize)
        points = (points if self._permutation is None else points.permute(self._permutation)).flatten(1)
        run = self._runtime.run_wide if self._wide else self._runtime.run
        return torch.from_numpy(run(points.contiguous().numpy()))

    def check_property(self, prop: Property) -> None:
        """Whether a property can be asked of this network.

        Raises:
            InvalidInputError: another number of inputs or outputs; or a softmax was left out, and the property says
                more than which outputs are larger than which.
        """
        inputs, outputs = math.prod(self.input_shape), self.network.num_classes
        if (prop.num_inputs, prop.num_outputs) != (inputs, outputs):
            raise InvalidInputError(
                f"the property has {prop.num_inputs} inputs and {prop.num_outputs} outputs, "
                f"the ONNX model {inputs} and {outputs}"
            )
        inequalities = (i for case in prop.cases for conjunction in case.conjunctions for i in conjunction)
        if self.order_only and not all(i.orders for i in inequalities):
            raise InvalidInputError("the ONNX model ends in a softmax: only properties that order outputs can be asked")

    def double(self) -> OnnxModel:
        """A copy that computes in float64, by onnx's reference implementation."""
        wide = copy.copy(self)
        wide.network, wide._wide = self.network.to(torch.float64), True
        return wide

    def __deepcopy__(self, memo: Any) -> OnnxModel:
        return copy.copy(self)  # nothing in it changes, and a session cannot be copied


class _Replaced(torch.autograd.Function):
    """The second argument, with the gradient of the first."""

    @staticmethod
    def forward(ctx: Any, network: Tensor, file: Tensor) -> Tensor:
        return file.to(network.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


@torch.no_grad()
def check_outputs(model: OnnxModel, points: Tensor) -> None:
    """Compares every output of the file with the network's at some points.

    What rounding explains is measured, output by output: 32 times the largest difference between the network in its own
    type and in float64 (float64 networks: 0), and 2^-20 (2^-49) of the output.

    Raises:
        InvalidInputError: they differ by more.
    """
    exact = model.network.to(torch.float64)(points.double())
    own = model.network(points)
    found = model.file_outputs(points)
    allowed = _WITHIN * (own.double() - exact).abs().amax(0) + _RELATIVE[points.dtype] * exact.abs().amax(0)
    difference = (found.double() - exact).abs().amax(0)
    if not bool((difference <= allowed + torch.finfo(points.dtype).tiny).all()):
        worst = int((difference - allowed).nan_to_num(math.inf).argmax())
        raise InvalidInputError(
            f"what was read differs from the ONNX file's own output {worst} by {difference[worst]:.3g} on random "
            f"inputs; rounding explains {allowed[worst]:.3g}"
        )
