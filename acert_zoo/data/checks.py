"""Checks of what users hand in: images, labels, models. Every refusal names the bad value and what is accepted."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from acert_zoo.errors import InvalidInputError, UnsoundSettingError

_INTEGERS = (
    *(torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint64, torch.uint32, torch.uint16, torch.uint8),
)

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")


def check_images(
    images: Any,
    labels: Any = None,
    input_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """(images, labels) as tensors: float32 pixels [N, C, H, W] in [0, 1], and int64 labels [N] or None.

    Args:
        images: float32 tensor or array of raw pixels; `-0.0` counts as 0.
        labels: integer tensor, array or list of length N with values in [0, num_classes), or None.
        input_shape: (C, H, W) that the model takes, where it is known.
        num_classes: number of logits K, where it is known.

    Raises:
        InvalidInputError: wrong type, dtype, shape, length or range; NaN or infinite pixels.
    """
    images = _tensor("images", images)
    _check_pixel_dtype(images)
    if images.dim() != 4:
        hint = "; a single image needs a batch dimension: image.unsqueeze(0)" if images.dim() == 3 else ""
        raise InvalidInputError(f"images must have shape [N, C, H, W], got {_shape(images)}{hint}")
    if input_shape is not None and tuple(images.shape[1:]) != tuple(input_shape):
        wanted = ", ".join(str(v) for v in input_shape)
        hint = ""
        if tuple(images.shape[1:]) == (*input_shape[1:], input_shape[0]):
            hint = "; channels come first: images.permute(0, 3, 1, 2)"
        raise InvalidInputError(f"the model takes images of shape [N, {wanted}], got {_shape(images)}{hint}")
    _check_pixel_range(images)
    return images, None if labels is None else _check_labels(labels, len(images), num_classes)


def _tensor(what: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_meta:
            kind = "a meta tensor" if value.is_meta else f"layout {value.layout}"
            raise InvalidInputError(f"{what} must be a dense tensor that holds its numbers, got {kind}")
        # A tensor of inference mode cannot enter a graph that gradients (of CROWN's slopes) are taken of.
        return value.clone() if value.is_inference() else value.detach()
    if isinstance(value, np.ndarray) or (what == "labels" and isinstance(value, (list, tuple))):
        try:
            return torch.from_numpy(_readable(what, value))
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise InvalidInputError(f"{what} cannot be read as a tensor: {error}") from None
    accepted = "a tensor or a NumPy array" + (" or a list of integers" if what == "labels" else "")
    raise InvalidInputError(f"{what} must be {accepted}, got {type(value).__name__}")


def _readable(what: str, value: Any) -> np.ndarray:
    """The numbers as an array that torch can hold: native byte order, no negative strides, writable, C order."""
    if isinstance(value, np.ma.MaskedArray):
        raise InvalidInputError(f"{what} must be a plain array; what is masked in a masked array has no value")
    array = np.asarray(value)
    if array.size == 0 and not isinstance(value, np.ndarray):
        array = array.astype(np.int64)  # labels of no images
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    plain = array.flags.writeable and all(stride >= 0 for stride in array.strides)
    return array if plain else np.array(array, order="C")


def _check_pixel_dtype(images: Tensor) -> None:
    if images.dtype == torch.float32:
        return
    if images.dtype == torch.uint8:
        hint = "bytes 0 to 255 become pixels by images.float() / 255"
    elif images.dtype.is_floating_point:
        hint = "convert with images.float(); what is certified are the exact float32 pixels"
    else:
        hint = "pixels are floating-point numbers in [0, 1]"
    raise InvalidInputError(f"images must be float32 pixels in [0, 1], got {images.dtype}; {hint}")


def _check_pixel_range(images: Tensor) -> None:
    if images.numel() == 0:
        return
    low, high = (v.item() for v in torch.aminmax(images))  # NaN where any pixel is NaN
    if low >= 0 and high <= 1:
        return
    finite = torch.isfinite(images).flatten(1).all(1)
    if not bool(finite.all()):
        raise InvalidInputError(
            f"pixels must lie in [0, 1]; image {int((~finite).nonzero()[0])} has NaN or infinite pixels"
        )
    outside = ((images < 0) | (images > 1)).flatten(1).any(1)
    hint = "; bytes 0 to 255 become pixels by images / 255" if low >= 0 and 1 < high <= 255 else ""
    if low < 0:
        hint = "; models take raw pixels, their first layer normalises"
    raise InvalidInputError(
        f"pixels must lie in [0, 1]; image {int(outside.nonzero()[0])} is outside (range {low:.9g} to {high:.9g}){hint}"
    )


def _check_labels(given: Any, n: int, num_classes: int | None) -> Tensor:
    labels = _tensor("labels", given)
    if labels.dtype not in _INTEGERS:
        raise InvalidInputError(f"labels must be integers (int64), got {labels.dtype}")
    if labels.dim() != 1 or len(labels) != n:
        raise InvalidInputError(f"labels must have shape [{n}], one for each image, got {_shape(labels)}")
    unsigned, labels = labels.dtype == torch.uint64, labels.to(torch.int64)
    if unsigned and n and int(labels.min()) < 0:  # wrapped around
        raise InvalidInputError(f"labels must be less than 2^63, got {int(labels.min()) + 2**64}")
    if n and num_classes is not None:
        bad = (labels < 0) | (labels >= num_classes)
        if bool(bad.any()):
            i = int(bad.nonzero()[0])
            raise InvalidInputError(
                f"label {int(labels[i])} of image {i} is out of range: the model has classes 0 to {num_classes - 1}"
            )
    return labels


def check_eval_mode(model: nn.Module) -> None:
    """Refuses a model in train mode, in which BatchNorm and Dropout make the output depend on the batch or chance."""
    for name, module in model.named_modules():
        if module.training:
            where = f"its layer {name!r}" if name else "it"
            raise UnsoundSettingError(f"the model is not in eval mode ({where} is in train mode): call model.eval()")


def check_memory(model: nn.Module) -> None:
    """Refuses weights without memory."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise InvalidInputError(f"the model has no weights: {name!r} is on the meta device; load them first")


def check_weights(model: nn.Module) -> None:
    """Refuses weights other than float32 numbers in memory: certificates are about the float32 network as stored."""
    check_memory(model)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise InvalidInputError(
                f"the model's weights must be float32, {name!r} is {tensor.dtype}: model.float() gives a float32 "
                "network (another one, which certificates are then about)"
            )


def uncompiled(model: nn.Module, rounding: str) -> nn.Module:
    """The module behind `torch.compile(model)`, which computes the same function in real arithmetic.

    Raises:
        UnsoundSettingError: `rounding` is "float32-deployed", which says nothing about a compiled program's rounding.
        InvalidInputError: the compiled wrapper has hooks or another forward, so that it is not the module behind it.
    """
    dynamo = sys.modules.get("torch._dynamo.eval_frame")  # importing it takes seconds
    compiled = dynamo is not None and type(model) is dynamo.OptimizedModule
    if (compiled or getattr(model, "_compiled_call_impl", None) is not None) and rounding == "float32-deployed":
        raise UnsoundSettingError(
            "the rounding of a compiled program is not that of its layers: give the module before torch.compile, or "
            "take rounding='real-sound'"
        )
    if not compiled:
        return model
    inner: nn.Module = model._orig_mod  # type: ignore[assignment]
    if any(vars(model).get(name) for name in _HOOKS) or not _compiles(vars(model).get("forward"), inner):
        raise InvalidInputError(
            "the compiled model has hooks or a forward of its own, so it is not the module that was compiled: give the "
            "module before torch.compile"
        )
    return inner


def _compiles(function: Any, module: nn.Module) -> bool:
    """Whether `function` is torch.compile's, made of `module` (`functools.wraps` copies attributes, not globals)."""
    if not str(getattr(function, "__globals__", {}).get("__name__")).startswith("torch._dynamo."):
        return False
    for _ in range(8):  # wrappers of wrappers
        if function is module or getattr(function, "__self__", None) is module:
            return True
        function = getattr(function, "_torchdynamo_orig_callable", None) or getattr(function, "__wrapped__", None)
    return False


def check_ids(ids: Sequence[str] | None, n: int) -> list[str]:
    """One distinct, printable name for each image: "0", "1", ... where none are given."""
    if ids is None:
        return [str(i) for i in range(n)]
    if isinstance(ids, (str, bytes)) or not hasattr(ids, "__iter__"):
        raise InvalidInputError(f"ids must be a list of {n} names, got {ids!r:.80}")
    names = [str(name) if isinstance(name, np.str_) else name for name in ids]
    if len(names) != n:
        raise InvalidInputError(f"ids must name each of the {n} images, got {len(names)}")
    for name in names:
        if not isinstance(name, str) or not 0 < len(name) <= 1024:
            raise InvalidInputError(f"ids must be non-empty strings of at most 1024 characters, got {name!r:.80}")
    if len(set(names)) != n:
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInputError(f"ids must be distinct, {twice!r} occurs more than once")
    return names


def pixel_sha256(image: Tensor) -> str:
    """sha256 of one image's pixels: the float32 numbers of [C, H, W] in C order, little endian."""
    array = image.detach().cpu().contiguous().numpy().astype("<f4", copy=False)
    return hashlib.sha256(array.tobytes()).hexdigest()


def _shape(t: Tensor) -> str:
    return f"[{', '.join(str(v) for v in t.shape)}]"
