"""ONNX out and in: `export_onnx` writes a network for other runtimes, `load_onnx` reads one to certify.

What is written: opset 17, one input "pixels" [batch, C, H, W] of raw pixels in [0, 1], one output "logits" [batch, K],
the normalisation inside, BatchNorm as it is in the network (folded in published checkpoints). What is read:
`operators.py`.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from acert_zoo._files import is_plain_file, write_atomically
from acert_zoo._version import SOURCE
from acert_zoo.data.checks import check_eval_mode
from acert_zoo.errors import InvalidInputError, MissingDependencyError, UnsupportedLayerError
from acert_zoo.network.agreement import Agreement, random_images
from acert_zoo.network.onnx.model import OnnxModel, check_outputs
from acert_zoo.network.onnx.reader import read_graph
from acert_zoo.network.onnx.runtime import Runtime
from acert_zoo.network.onnx.writer import to_proto
from acert_zoo.network.reading import read

INSTALL = f"pip install 'acert-zoo[onnx] @ {SOURCE}'"
MAX_BYTES = 2**30  # of a file


def onnx_package() -> Any:
    """The module `onnx`, or MissingDependencyError."""
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError(f"ONNX files need the onnx package; install it with: {INSTALL}") from error
    return onnx


def export_onnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    input_shape: tuple[int, ...] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Writes `model` (in eval mode, raw pixels in) as an ONNX file, atomically; a float64 model as float64.

    Args:
        model: a model of the zoo, or any module that `read` reads, which compares it with what is written.
        path: the file.
        input_shape: (C, H, W), where the model does not say it.
        overwrite: whether a file that exists is replaced.

    Raises:
        MissingDependencyError: onnx is not installed.
        InvalidInputError: no input shape is known, the folder does not exist, or the file does and is not to be
            replaced.
        UnsupportedLayerError: a cascade, whose gates are proofs and no layers.
        InvalidInputError, UnsupportedLayerError, UnsoundSettingError: see `read`; a model in train mode.
    """
    onnx = onnx_package()
    shape, target = export_target(model, path, input_shape)
    if target.exists() and not overwrite:
        raise InvalidInputError(f"{str(path)!r} exists; it is replaced with overwrite=True (--force)")
    network = read(model, shape).network
    write_atomically(target, to_proto(onnx, network, shape).SerializeToString())


def export_target(
    model: nn.Module, path: str | os.PathLike[str], input_shape: Sequence[int] | None
) -> tuple[tuple[int, ...], Path]:
    """((C, H, W), file) of an export, checked before any work is done.

    Raises:
        UnsoundSettingError: a model in train mode. UnsupportedLayerError: a cascade.
        InvalidInputError: no input shape is known, or the folder does not exist.
    """
    check_eval_mode(model)
    check_one_network(model)
    shape = input_shape or getattr(model, "input_shape", None)
    if shape is None:
        raise InvalidInputError("the model does not say its input shape; give input_shape=(C, H, W)")
    target = Path(path)
    if not target.parent.is_dir():
        raise InvalidInputError(f"{str(path)!r}: the folder does not exist")
    return tuple(shape), target


def check_one_network(model: nn.Module) -> None:
    """Raises UnsupportedLayerError for a cascade, whose gates are proofs about each image."""
    if hasattr(model, "gates") and hasattr(model, "members"):
        raise UnsupportedLayerError(
            "a cascade is not one network: its gates are proofs, which ONNX cannot express; export its members instead"
        )


def load_onnx(
    path: str | os.PathLike[str],
    input_shape: Sequence[int] | None = None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classifier: bool = True,
) -> OnnxModel:
    """The network of an ONNX file (.onnx, or .onnx.gz), checked against the file's own outputs on random inputs.

    The file has one float32 or float64 input and one output. It is read as a function of one image: the batch axis of
    its input, where it has one, is free or 1. `forward` of the result gives the file's own answers (by onnxruntime,
    where that is installed), so that certification compares the two on the very images that it certifies.

    Args:
        path: the file.
        input_shape: (C, H, W) of images, for classifiers whose input is not [batch, C, H, W]; by default (H, W, C) is
            recognised by its 1 or 3 channels, and n numbers are a square image of 1 or 3 channels where that fits.
        mean, std: per-channel constants (length C, or one number) where the file takes (pixels - mean) / std.
        classifier: whether it is to be a classifier of images. Otherwise (for properties) the network takes the
            input in the file's own shape, without a batch axis of 1, and may have any output, flattened.

    Raises:
        MissingDependencyError: onnx is not installed.
        InvalidInputError: no such file, not an ONNX model, inputs or outputs of another form, or what was read does
            not compute what the file does.
        UnsupportedLayerError: naming the first operator that no bound covers.
    """
    onnx = onnx_package()
    proto = _read_proto(onnx, Path(path))
    graph = read_graph(onnx, proto, image_shape=input_shape, as_images=classifier, mean=mean, std=std)
    model = OnnxModel(graph, Runtime(onnx, proto, graph))
    dtype = graph.network.head.weight.dtype
    points = _random_inputs(graph.input_shape, dtype)
    points = points if model._runtime.fast else points[:1]
    check_outputs(model, points)
    if graph.network.num_classes > 1:
        Agreement(model, graph.network, None, dtype, known=False).images(points.float())
    return model


def _random_inputs(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Four images, and one input that is none: normal numbers."""
    normal = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    return torch.cat([random_images(shape, dtype, 4), normal.to(dtype)])


def _read_proto(onnx: Any, path: Path) -> Any:
    if not is_plain_file(path):
        raise InvalidInputError(f"{str(path)!r} is not a file")
    if path.stat().st_size > MAX_BYTES:
        raise InvalidInputError(f"{str(path)!r} is larger than {MAX_BYTES >> 20} MiB")
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as stream:
                content = stream.read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES:
                raise InvalidInputError(f"it is larger than {MAX_BYTES >> 20} MiB")
            proto = onnx.load_model_from_string(content)
        else:
            proto = onnx.load(str(path))
        onnx.checker.check_model(proto)
        if proto.functions:
            standard = [f.name for f in proto.functions if f.domain in ("", "ai.onnx")]
            if standard:  # runtimes differ in which of the two they take
                raise InvalidInputError(f"it defines {standard[0]!r}, an operator of ONNX, anew")
            from onnx import inliner  # no attribute of the package until somebody imports it

            proto = inliner.inline_local_functions(proto)
    except Exception as error:  # protobuf and the checker raise many kinds
        message = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidInputError(f"{str(path)!r} is not a valid ONNX model: {message}") from error
    return proto
