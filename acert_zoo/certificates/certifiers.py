"""Which certifier takes which model: its own, or one of a single network, by the method that is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import nn

from acert_zoo.bounds.certifier import Certifier
from acert_zoo.bounds.network_certifier import NetworkCertifier
from acert_zoo.bounds.search_device import search_device
from acert_zoo.certificates.decide import check_single
from acert_zoo.data.checks import check_eval_mode, check_weights, uncompiled
from acert_zoo.errors import InvalidInputError
from acert_zoo.network.architectures import Normalize
from acert_zoo.network.reading import read
from acert_zoo.rounding import SELECTABLE_LEVELS, BoundMethod, RoundingLevel


def make_certifier(
    model: nn.Module,
    images_shape: Sequence[int],
    *,
    method: str = BoundMethod.IBP,
    rounding: str = RoundingLevel.REAL_SOUND,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    budget: float | None = None,
    input_shape: Sequence[int] | None = None,
    device: str | torch.device = "cpu",
) -> Certifier:
    """The certifier of `model`; arguments and errors as `certify`."""
    method, rounding = BoundMethod.among(method), RoundingLevel.among(rounding, SELECTABLE_LEVELS)
    if budget is not None and not (isinstance(budget, (int, float)) and budget > 0):
        raise InvalidInputError(f"budget {budget!r}: expected a positive number of seconds")
    where = search_device(device)
    elsewhere = {} if where.type == "cpu" else {"device": where}
    if not isinstance(model, nn.Module):
        raise InvalidInputError(f"the model must be a torch.nn.Module, got {type(model).__name__}")
    model = uncompiled(model, rounding)
    if rounding != RoundingLevel.FLOAT32:
        check_weights(model)
    if method == BoundMethod.COMPLETE:
        if elsewhere:
            raise InvalidInputError(f"method 'complete' runs on the CPU alone, not on {str(where)!r}")
        return _complete(model, images_shape, rounding, mean, std, budget, input_shape)
    own = getattr(model, "certifier", None)
    if callable(own) and mean is None and std is None:
        check_eval_mode(model)
        check_weights(model)
        if elsewhere and "device" not in inspect.signature(own).parameters:
            raise InvalidInputError(f"a {type(model).__name__} is certified on the CPU alone, not on {str(where)!r}")
        certifier: Certifier = own(method=method, rounding=rounding, budget=budget, **elsewhere)
        return certifier
    shape = input_shape or getattr(model, "input_shape", None) or tuple(images_shape[1:])
    reading = read(model, shape, mean, std)
    return NetworkCertifier(reading.network, shape, method, rounding, budget, reading.agreement, **elsewhere)


def _complete(
    model: nn.Module,
    images_shape: Sequence[int],
    rounding: str,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    budget: float | None,
    input_shape: Sequence[int] | None,
) -> Certifier:
    from acert_zoo.complete.complete_certifier import CompleteCertifier

    check_eval_mode(model)
    check_weights(model)
    check_single(model)
    shape = input_shape or getattr(model, "input_shape", None) or tuple(images_shape[1:])
    reading = read(model, shape, mean, std)
    whole = model if mean is None or std is None else nn.Sequential(Normalize(mean, std), model).eval()
    return CompleteCertifier(whole, reading.network, shape, rounding, budget, reading.agreement)
