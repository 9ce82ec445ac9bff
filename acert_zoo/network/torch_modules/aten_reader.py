"""Reads an exported program of ATen operations, one by one, into the steps of a `Network`.

What depends on the network input is a `Value`; whatever depends on parameters alone is computed here, once, by torch
itself, with the live parameters (gradients flow through it). Every value must keep the batch axis first and the input's
dtype. Randomness, changes of state, control flow and custom operators are refused.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind

from acert_zoo.errors import UnsupportedLayerError
from acert_zoo.network.building.builder import PLAIN_TENSORS, SUPPORTED, Builder, Unsupported, Value
from acert_zoo.network.torch_modules import aten_operations, aten_rearrangements  # noqa: F401 (their rules enter the table)
from acert_zoo.network.torch_modules.aten_rules import RULES, BatchSize, Call, Repeated
from acert_zoo.network.torch_modules.functional_program import FunctionalProgram

_IGNORED = ("aten._assert_tensor_metadata", "aten._assert_scalar", "aten.sym_constrain_range")  # they compute nothing
_REPEATING = ("aten.full.default", "aten.expand.default")  # of constants, to the batch size
_RANDOM = ("rand", "bernoulli", "empty", "normal", "dropout", "multinomial", "poisson", "uniform", "exponential")


def read_program(program: FunctionalProgram, model: nn.Module, builder: Builder) -> Value:
    """The program's output as a value of `builder`, whose input shape is known.

    Args:
        program: of `module_export.export(model, ...)`.

    Raises:
        UnsupportedLayerError: naming the first operation that has no rule, and what is supported.
    """
    return _Reader(program, model, builder).output()


class _Reader:
    def __init__(self, program: FunctionalProgram, model: nn.Module, builder: Builder) -> None:
        self.program, self.builder = program, builder
        self.live: dict[str, Tensor] = {
            **dict(model.named_parameters(remove_duplicate=False)),
            **dict(model.named_buffers(remove_duplicate=False)),
        }
        self.env: dict[Any, Any] = {}
        self.batch: Any = None  # torch's symbol of the batch size

    def output(self) -> Value:
        inputs = iter(self.program.inputs)
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self.env[node] = self._input(node, *next(inputs))
            elif node.op == "call_function":
                self.env[node] = self._call(node)
            elif node.op == "get_attr":
                self.env[node] = None  # a subgraph of control flow: the call that takes it is refused
        return self._output()

    def _input(self, node: Any, kind: InputKind, name: str) -> Any:
        if kind == InputKind.USER_INPUT:
            self.batch = node.meta["val"].shape[0]
            return self.builder.input
        if kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            found = self.live.get(name.removeprefix("model."), self.program.tensors.get(name))
            if found is not None and type(found) not in PLAIN_TENSORS:
                raise UnsupportedLayerError(
                    f"{name.removeprefix('model.')!r} is a {type(found).__name__}, which may give torch's functions "
                    "another meaning; plain tensors and parameters are read"
                )
            if found is not None:
                return found
        raise UnsupportedLayerError(f"the model uses {name!r} ({kind.name}), which is no tensor of its own")

    def _output(self) -> Value:
        if self.program.changed:
            raise UnsupportedLayerError(
                f"the model's forward changes its own state ({self.program.changed[0]}); its answers could depend on "
                "what it was asked before"
            )
        results = self.program.results
        result = self.env.get(results[0]) if len(results) == 1 else None
        if not isinstance(result, Value):
            raise UnsupportedLayerError(
                f"the model must return one tensor of logits that depend on its input, it returns {len(results)} of: "
                f"{result!r}"
            )
        return result

    def _call(self, node: Any) -> Any:
        name = str(node.target)
        if name.startswith(_IGNORED):
            return None
        if isinstance(node.meta.get("val"), (torch.SymInt, torch.SymFloat, torch.SymBool)):
            return BatchSize()
        args, kwargs = torch.fx.node.map_arg((node.args, dict(node.kwargs)), self.env.__getitem__)
        found: list[Any] = []
        torch.fx.node.map_aggregate((args, kwargs), found.append)
        try:
            if node.target is operator.getitem:
                return self._item(node)
            if not any(isinstance(v, (Value, Repeated)) for v in found):
                return self._constant(node, name, args, kwargs, found)
            rule = RULES.get(name)
            if rule is None:
                raise Unsupported("")
            result = rule(Call(self.builder, _layer(node), self._shape(node)), *args, **kwargs)
            return self._checked(node, result)
        except (Unsupported, TypeError) as error:
            raise self._unsupported(node, error) from None

    def _item(self, node: Any) -> Any:
        result = self.env[node.args[0]][node.args[1]]
        if result is None:
            raise self._unsupported(node, f"output {node.args[1]} of {node.args[0].target}")
        return self._checked(node, result)

    def _constant(self, node: Any, name: str, args: Any, kwargs: Any, found: list[Any]) -> Any:
        """An operation on constants alone."""
        tags = getattr(node.target, "tags", ())
        if torch.Tag.nondeterministic_seeded in tags or any(word in name for word in _RANDOM):
            raise Unsupported("its result is random, or memory that nothing was written to")
        if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace != "aten":
            raise Unsupported("no ATen operation")
        if not any(isinstance(v, BatchSize) for v in found):
            return node.target(*args, **kwargs)
        sizes = list(args[1] if name == "aten.expand.default" else args[0]) if name in _REPEATING else []
        if not sizes or not isinstance(sizes[0], BatchSize) or any(isinstance(v, BatchSize) for v in sizes[1:]):
            raise Unsupported("a constant that depends on the batch size")
        sizes[0] = 1
        args = (args[0], sizes) if name == "aten.expand.default" else (sizes, *args[1:])
        if name == "aten.expand.default" and args[0].dim() == len(sizes) and args[0].shape[0] != 1:
            raise Unsupported("a constant that depends on the batch size")
        if any(isinstance(v, BatchSize) for v in args[1:]):
            raise Unsupported("a constant that depends on the batch size")
        return self._checked(node, Repeated(node.target(*args, **kwargs)))

    def _shape(self, node: Any) -> tuple[int, ...] | None:
        """The shape of one sample of a node's result, which must have the batch axis, and it alone, first."""
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            return None
        first, *rest = value.shape or (None,)
        if not isinstance(first, torch.SymInt) or first.node.expr != self.batch.node.expr:
            raise Unsupported(f"its result has shape {tuple(value.shape)}: the batch axis must stay first")
        if any(not isinstance(v, int) for v in rest):
            raise Unsupported(f"its result has shape {tuple(value.shape)}, which depends on the batch size")
        return tuple(rest)

    def _checked(self, node: Any, result: Any) -> Any:
        """The result, if it is what torch says of this node."""
        if isinstance(result, Value):
            shape = self._shape(node)
            if result.shape != shape:
                raise Unsupported(f"read as a value of shape {result.shape} per sample, not {shape}")
            if node.meta["val"].dtype != self.builder.dtype:
                raise Unsupported(f"its result is {node.meta['val'].dtype}, the model's images {self.builder.dtype}")
        if isinstance(result, Repeated):
            if tuple(result.tensor.shape[1:]) != self._shape(node):
                raise Unsupported(f"read as a constant of shape {tuple(result.tensor.shape)}")
            if result.tensor.dtype != node.meta["val"].dtype:
                raise Unsupported(f"read as a constant of {result.tensor.dtype}, which is {node.meta['val'].dtype}")
        return result

    def _unsupported(self, node: Any, why: object) -> UnsupportedLayerError:
        reason = f": {why}" if str(why) else ""
        what = str(node.target) if node.target is not operator.getitem else "an output"
        kinds = [str(kind).rsplit(".", 1)[-1] for _, kind in (node.meta.get("nn_module_stack") or {}).values()]
        inside = f" in {kinds[-1]}" if kinds else ""
        return UnsupportedLayerError(
            f"layer {_layer(node)!r} ({what}{inside}) is not supported{reason}; supported: {SUPPORTED}"
        )


def _layer(node: Any) -> str:
    """The name of the innermost module that a node belongs to, or else its own."""
    names = [name for name, _ in (node.meta.get("nn_module_stack") or {}).values()]
    return str(names[-1]).removeprefix("model.").removeprefix("model") or node.name if names else node.name
