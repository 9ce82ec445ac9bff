"""Runs an ONNX file itself, image by image or in batches: what the network that was read from it is held against.

By onnxruntime where it is installed; else by onnx's reference implementation, which is slow. In float64 by the latter,
on a copy of the model whose numbers have all been widened: what float32 rounding hides shows there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from acert_zoo.errors import InvalidInputError
from acert_zoo.network.onnx.reader import Graph


class Runtime:
    """The outputs of a file for points [N, ...] in the order of its input, as [N, K].

    Attributes:
        fast: whether onnxruntime runs it.
    """

    def __init__(self, onnx: Any, proto: Any, graph: Graph) -> None:
        self.dims, self.batched, self.outputs = graph.input_dims, graph.batched, graph.network.num_classes
        self._onnx = onnx
        self._proto = onnx.ModelProto()
        self._proto.CopyFrom(proto)
        if graph.order_only:  # the file's outputs before its softmax
            kind = proto.graph.output[0].type.tensor_type.elem_type
            del self._proto.graph.output[:]
            self._proto.graph.output.append(onnx.helper.make_tensor_value_info(graph.output, kind, None))
        constants = {t.name for t in proto.graph.initializer}
        self._input = next(i.name for i in proto.graph.input if i.name not in constants)
        self._double: Any = None
        self._session, self.fast = self._open()

    def _open(self) -> tuple[Any, bool]:
        try:
            import onnxruntime
        except ImportError:
            return self._reference(), False
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4  # what it cannot run is an error here, or the reference implementation's task
        try:
            content = self._proto.SerializeToString()
            return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]), True
        except Exception:  # onnxruntime's own kinds: it lacks, say, float64 convolutions
            return self._reference(), False

    def _reference(self) -> Any:
        from onnx.reference import ReferenceEvaluator

        try:
            return ReferenceEvaluator(self._proto)
        except Exception as error:  # it raises whatever its parts do
            raise InvalidInputError(f"the ONNX model cannot be run: {_first_line(error)}") from error

    def run(self, points: Any) -> Any:
        """The outputs in the file's own type: all points at once where its batch axis is free.

        Raises:
            InvalidInputError: the file cannot be run, or gives another number of outputs than was read.
        """
        if self.batched and len(points) > 1:
            try:
                return self._once(self._session, points.reshape(len(points), *self.dims[1:]), len(points))
            except InvalidInputError:  # written for one image at a time, whatever its input says
                self.batched = False
        return np.concatenate([self._once(self._session, p.reshape(self.dims), 1) for p in points])

    def run_wide(self, points: Any) -> Any:
        """The outputs in float64, one point at a time."""
        if self._double is None:
            from onnx.reference import ReferenceEvaluator

            self._double = ReferenceEvaluator(_widened(self._onnx, self._proto))
        points = points.astype(np.float64)
        return np.concatenate([self._once(self._double, p.reshape(self.dims), 1) for p in points])

    def _once(self, session: Any, feed: Any, points: int) -> Any:
        try:
            (found,) = session.run(None, {self._input: np.ascontiguousarray(feed)})
        except Exception as error:  # onnxruntime's own kinds; the reference implementation raises any
            raise InvalidInputError(f"the ONNX model cannot be run: {_first_line(error)}") from error
        if np.size(found) != points * self.outputs or (points > 1 and np.shape(found)[0] != points):
            raise InvalidInputError(
                f"the ONNX model gives outputs of shape {np.shape(found)} for {points} image(s), not "
                f"{self.outputs} numbers for each"
            )
        return np.reshape(found, (points, self.outputs))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _widened(onnx: Any, proto: Any) -> Any:
    """A copy in which every float32 tensor, constant and conversion is float64."""
    single, double = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE
    wide = onnx.ModelProto()
    wide.CopyFrom(proto)

    def tensor(t: Any) -> None:
        if t.data_type == single:
            array = onnx.numpy_helper.to_array(t).astype(np.float64)
            t.CopyFrom(onnx.numpy_helper.from_array(array, t.name))

    def graph(g: Any) -> None:
        for t in g.initializer:
            tensor(t)
        for info in (*g.input, *g.output, *g.value_info):
            if info.type.tensor_type.elem_type == single:
                info.type.tensor_type.elem_type = double
        for node in g.node:
            for a in node.attribute:
                if a.HasField("t"):
                    tensor(a.t)
                if a.HasField("g"):
                    graph(a.g)
                if node.op_type == "Cast" and a.name == "to" and a.i == single:
                    a.i = double
                if node.op_type == "Constant" and a.name in ("value_float", "value_floats"):
                    numbers = np.array(a.f if a.name == "value_float" else list(a.floats), dtype=np.float64)
                    a.CopyFrom(onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(numbers)))

    graph(wide.graph)
    return wide
