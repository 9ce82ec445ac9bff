"""An exported program without side effects: operations in place resolved, composite ones taken apart.

`ExportedProgram.run_decompositions` does this for any program, in a second or more. What consists of ATen operations
alone, as nearly every classifier does, is taken apart in a fifth of that: its graph is run once more, on the same
tensors without contents, through `torch.func.functionalize`. Where that does not apply, or fails, torch's own way is
taken.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx.traceback
from torch import Tensor
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx.experimental.proxy_tensor import make_fx

_SIZES = ("_operator", "math", "torch")  # modules of functions of sizes


@dataclass(frozen=True)
class FunctionalProgram:
    """What is read of a program.

    Attributes:
        graph: of ATen operations, none of which changes a tensor; `node.meta["val"]` has the form of every result.
        inputs: (kind, name) of the graph's placeholders, in order.
        tensors: by name, what the program itself holds.
        results: the nodes that the forward returns.
        changed: names of the module's own tensors that the forward changes.
    """

    graph: Any
    inputs: tuple[tuple[InputKind, str], ...]
    tensors: dict[str, Tensor]
    results: tuple[Any, ...]
    changed: tuple[str, ...]


def functional(program: Any, table: dict[Any, Any]) -> FunctionalProgram:
    """`program`, a `torch.export.ExportedProgram`, taken apart by a table of decompositions (empty: torch's own)."""
    if table and _of_aten_alone(program):
        try:
            return _retraced(program, table)
        except Exception:  # whatever torch does not manage here it does below, or says why not
            pass
    return _decomposed(program.run_decompositions(table) if table else program.run_decompositions())


def _of_aten_alone(program: Any) -> bool:
    """No control flow, regions of another mode, or operators of others: they are not run through again."""
    if any(spec.kind != OutputKind.USER_OUTPUT for spec in program.graph_signature.output_specs):
        return False
    for node in program.graph.nodes:
        if node.op not in ("placeholder", "call_function", "output"):
            return False
        if node.op == "placeholder" and not isinstance(node.meta.get("val"), Tensor):
            return False
        if node.op == "call_function" and not _is_aten(node.target):
            return False
    return True


def _is_aten(target: Any) -> bool:
    if isinstance(target, torch._ops.OpOverload):
        return bool(target.namespace == "aten")
    return target is operator.getitem or getattr(target, "__module__", "") in _SIZES


def _inputs(program: Any) -> tuple[tuple[InputKind, str], ...]:
    return tuple(
        (spec.kind, str(getattr(spec, "target", None) or spec.arg.name)) for spec in program.graph_signature.input_specs
    )


def _tensors(program: Any) -> dict[str, Tensor]:
    held = {**program.constants, **program.state_dict}
    return {name: tensor for name, tensor in held.items() if isinstance(tensor, Tensor)}


def _retraced(program: Any, table: dict[Any, Any]) -> FunctionalProgram:
    samples = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"]
    inputs = _inputs(program)
    run = _Rerun(program.graph_module).run
    mode = next(t.fake_mode for t in samples if hasattr(t, "fake_mode"))
    with mode, torch.fx.traceback.preserve_node_meta(), torch.no_grad():
        graph = make_fx(torch.func.functionalize(lambda *tensors: run(*tensors)), decomposition_table=table)(
            *samples
        ).graph
    graph.eliminate_dead_code()
    places = {node: i for i, node in enumerate(n for n in graph.nodes if n.op == "placeholder")}
    changed = []
    for node in list(graph.nodes):
        if node.op == "call_function" and getattr(getattr(node.target, "_schema", None), "is_mutable", False):
            if node.target is not torch.ops.aten.copy_.default or node.args[0] not in places or node.users:
                raise ValueError(f"{node.target} is left")  # else: how functionalize says that an input was changed
            kind, name = inputs[places[node.args[0]]]
            if kind != InputKind.USER_INPUT:
                changed.append(name)
            graph.erase_node(node)
    (output,) = (node for node in graph.nodes if node.op == "output")
    return FunctionalProgram(graph, inputs, _tensors(program), tuple(output.args[0]), tuple(changed))


class _Rerun(torch.fx.Interpreter):
    """Runs a graph as it stands, but for what comes out of it in a form that has no rule."""

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target in _MATRICES and not kwargs and args[0].dim() > 2 and args[1].dim() == 2:
            weight, bias = args[1], args[2] if len(args) > 2 else None
            return _along_last_axis(args[0], weight.t() if target is _MATMUL else weight, bias)
        if target in _CLAMPING:  # functionalization does not take their decompositions with a free batch axis
            return args[0].copy_(_CLAMPING[target](*args, **kwargs))
        return super().call_function(target, args, kwargs)


_MATMUL = torch.ops.aten.matmul.default
_MATRICES = (torch.ops.aten.linear.default, _MATMUL)
_CLAMPING = {
    torch.ops.aten.clamp_.default: torch.ops.aten.clamp.default,
    torch.ops.aten.clamp_min_.default: torch.ops.aten.clamp_min.default,
    torch.ops.aten.clamp_max_.default: torch.ops.aten.clamp_max.default,
    torch.ops.aten.hardtanh_.default: torch.ops.aten.hardtanh.default,
}


def _along_last_axis(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """linear(x, weight, bias) as a 1x1 convolution; torch's own form of it joins the batch axis with others."""
    y = torch.conv2d(x.movedim(-1, 1).flatten(2).unsqueeze(3), weight[:, :, None, None], bias)
    return y.reshape(x.shape[0], weight.shape[0], *x.shape[1:-1]).movedim(1, -1)


def _decomposed(program: Any) -> FunctionalProgram:
    specs = program.graph_signature.output_specs
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    results = [n for n, s in zip(output.args[0], specs, strict=True) if s.kind == OutputKind.USER_OUTPUT]
    kept = (OutputKind.USER_OUTPUT, OutputKind.USER_INPUT_MUTATION)
    changed = [str(s.target or s.kind.name) for s in specs if s.kind not in kept]
    return FunctionalProgram(program.graph, _inputs(program), _tensors(program), tuple(results), tuple(changed))
