"""`read`: a module as a `Network` that has been checked against it; what every certificate begins with."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from acert_zoo.data.checks import check_memory
from acert_zoo.errors import InvalidInputError, UnsoundSettingError
from acert_zoo.network.agreement import Agreement, Constants, normalized, random_images
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Normalize
from acert_zoo.network.torch_modules import known_layers
from acert_zoo.network.torch_modules.module_state import ModuleState
from acert_zoo.network.tracing import floating_dtype, renumber, trace


@dataclass(frozen=True)
class Reading:
    """A module's network, detached, of raw pixels in [0, 1], and the comparison of the two."""

    network: Network
    agreement: Agreement


def read(
    model: nn.Module,
    input_shape: Sequence[int] | None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Reading:
    """The network of a module that takes normalised images, checked against it on random images.

    Args:
        model: a classifier in eval mode; its input is (pixels - mean) / std where these are given, else raw pixels.
        input_shape: (C, H, W) of one image; None is enough for modules of known layers.
        mean, std: per-channel constants (length C, or one number), std > 0.

    Raises:
        InvalidInputError: arguments of the wrong form; a module that does not take such images, or does not return
            logits [N, K]; a module whose outputs differ from the network's, between equal calls, with the other images
            of a batch or with the grad mode, or that changes its own state.
        UnsoundSettingError: a module in train mode.
        UnsupportedLayerError: see `trace`.
    """
    if not isinstance(model, nn.Module):
        raise InvalidInputError(f"the model must be a torch.nn.Module, got {type(model).__name__}")
    check_memory(model)
    known = known_layers.is_known(model)
    if known and input_shape is None and mean is None and std is None:
        _check_mode(model)
        network = _snapshot(trace(model))
        return Reading(network, Agreement(model, network, None, floating_dtype(model), known=True))
    shape = tuple(input_shape or ())
    if len(shape) != 3 or any(type(v) is not int or v < 1 for v in shape):
        raise InvalidInputError(f"input_shape must be (C, H, W), three positive integers, got {input_shape!r}")
    _check_mode(model)
    dtype = floating_dtype(model)
    normalize = channel_constants(shape[0], mean, std)
    if not known:
        _check_answer(model, shape, normalize, dtype)
    network = _snapshot(trace(model, shape))
    if normalize is not None:
        moved = (Normalize(inputs=(0,), name="normalize", mean=normalize[0], std=normalize[1]),)
        network = Network(moved + tuple(renumber(s, {i: i + 1 for i in s.inputs}) for s in network.steps))
    agreement = Agreement(model, network, normalize, dtype, known)
    if not known:
        _check_steadiness(model, shape, normalize, dtype)
        agreement.images(random_images(shape, dtype))
    return Reading(network, agreement)


def _snapshot(network: Network) -> Network:
    """A copy that later changes of the module's weights do not reach."""
    return network.map_tensors(lambda t: t.detach().clone())


def _check_mode(model: nn.Module) -> None:
    training = [n or "the model" for n, m in model.named_modules() if m.training and (n == "" or not _inert(m))]
    if training:
        raise UnsoundSettingError(f"{training[0]} is in train mode; call model.eval() before certification")


def _inert(module: nn.Module) -> bool:
    """Whether train mode changes nothing in what the module itself computes."""
    return not isinstance(module, (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd))


def channel_constants(channels: int, mean: Any, std: Any) -> Constants | None:
    """(mean, std), float32 [C], of what a caller gave for them; None where he gave neither."""
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise InvalidInputError("give both mean and std, or neither")
    out = []
    for what, value in (("mean", mean), ("std", std)):
        try:
            numbers = (
                torch.as_tensor(value, dtype=torch.float64, device="cpu").flatten().tolist()
            )  # [], [C], [1, C, 1, 1]
        except (TypeError, ValueError, RuntimeError):
            raise InvalidInputError(f"{what} must be numbers, one a channel, got {value!r:.80}") from None
        numbers = numbers * channels if len(numbers) == 1 else numbers
        bad = len(numbers) != channels or not all(math.isfinite(v) for v in numbers)
        if bad or (what == "std" and min(numbers) <= 0):
            want = "positive numbers" if what == "std" else "numbers"
            raise InvalidInputError(f"{what} must be {channels} finite {want}, one a channel, got {value!r}")
        out.append(torch.tensor(numbers, dtype=torch.float32, device="cpu"))
    return out[0], out[1]


def _logits(model: nn.Module, images: Tensor, normalize: Constants | None, grad: bool = False) -> Any:
    with torch.set_grad_enabled(grad):
        out = model(normalized(images, normalize))
    return out.detach() if isinstance(out, Tensor) else out


def _check_answer(model: nn.Module, shape: tuple[int, ...], normalize: Constants | None, dtype: torch.dtype) -> None:
    """That the module takes such images and returns logits."""
    images = random_images(shape, dtype)
    try:
        first = _logits(model, images, normalize)
    except Exception as error:  # the user's own code
        message = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidInputError(f"the model does not take images of shape {tuple(images.shape)}: {message}") from error
    plain = isinstance(first, Tensor) and first.layout == torch.strided and not first.is_nested
    if not plain or first.dim() != 2 or len(first) != len(images) or first.shape[1] < 2:
        got = (
            tuple(first.shape) if plain else f"{type(first).__name__}{' that is not dense' * isinstance(first, Tensor)}"
        )
        raise InvalidInputError(f"the model must return logits of shape [{len(images)}, K >= 2], it returned {got}")
    if not bool(torch.isfinite(first).all()):
        raise InvalidInputError("the model's logits of random images are not finite")


def _check_steadiness(
    model: nn.Module, shape: tuple[int, ...], normalize: Constants | None, dtype: torch.dtype
) -> None:
    """What no trace shows: that the module answers the same whenever and however it is asked."""
    images = random_images(shape, dtype)
    first = _logits(model, images, normalize)
    state, drawn = ModuleState(model), _random_state()  # after the first answer: some layers set themselves up
    size = max(1.0, first.abs().max().item())
    again, single = _logits(model, images, normalize), _or_none(model, images[:1], normalize)
    with torch.inference_mode():
        inferred = _or_first(first, model, images, normalize)
    recorded = _or_first(first, model, images, normalize, grad=True)  # operations in place may forbid gradients,
    tracked = _or_first(first, model, images.clone().requires_grad_(), normalize, grad=True)  # or of the images alone
    turned = _or_first(first, model, images.contiguous(memory_format=torch.channels_last), normalize)  # or `view` this
    answers = (
        (again, first),
        (single, first[:1]),
        (inferred, first),
        (recorded, first),
        (tracked, first),
        (turned, first),
    )
    for other, mine in answers:
        same_form = isinstance(other, Tensor) and other.shape == mine.shape
        if not same_form or not (mine - other).abs().max().item() <= 1e-4 * size:
            raise InvalidInputError(
                "the model's logits of one image change between calls, with the other images beside it, with "
                "torch.no_grad() or torch.inference_mode(), with images that require gradients, or with their memory "
                "format"
            )
    if _random_state() != drawn:
        raise InvalidInputError("the model's forward draws random numbers: its next answer could be another one")
    if not state.unchanged(model):
        raise InvalidInputError(
            "the model's forward changes the model (an attribute, a buffer, or what its hooks hold): its answers could "
            "depend on what it was asked before"
        )


def _or_first(first: Tensor, *arguments: Any, **options: Any) -> Any:
    """The logits; `first` where the user's code raises."""
    found = _or_none(*arguments, **options)
    return first if found is None else found


def _random_state() -> tuple[int, ...]:
    """Where the process's generators of random numbers stand, as hashes."""
    keys = np.random.get_state(legacy=False)["state"]  # type: ignore[call-overload]  # noqa: NPY002 (others draw from it)
    numpys = keys["key"].tobytes() + bytes(str(keys["pos"]), "ascii")
    return hash(random.getstate()), hash(torch.get_rng_state().numpy().tobytes()), hash(numpys)


def _or_none(*arguments: Any, **options: Any) -> Any:
    """The logits; None where the user's code raises."""
    try:
        with warnings.catch_warnings():  # of torch, on what only these calls do
            warnings.simplefilter("ignore")
            return _logits(*arguments, **options)
    except Exception:
        return None
