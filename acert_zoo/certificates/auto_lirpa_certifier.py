"""Models with operations that no `Network` can represent (sigmoid, tanh, leaky ReLU, ...), through auto-LiRPA alone.

Only on request (`rounding="float32"`), since nothing about the rounding is proved and no second opinion of ours exists:
auto-LiRPA converts the module itself, and its bounds are taken as they are. What it converted is run against the module
on random images. Certificates are labelled `float32` (or `float64`, where the weights are), their method `lirpa-ibp`,
`lirpa-crown-ibp` and so on; `acert-zoo verify` cannot prove them again.
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from acert_zoo.bounds import auto_lirpa_compat
from acert_zoo.bounds.auto_lirpa import FAILURES, LirpaBounds
from acert_zoo.bounds.certifier import BatchCertificates, Certifier
from acert_zoo.bounds.crown_radius import DEFAULT_BUDGET, climb, width
from acert_zoo.errors import InvalidInputError, MissingDependencyError, UnprovedRoundingWarning, UnsupportedLayerError
from acert_zoo.network.tracing import channel_constants, random_images
from acert_zoo.rounding import CROWN_METHODS, BoundMethod, RoundingLevel

TOLERANCE = 1e-5  # between auto-LiRPA's graph and the module, relative to the largest logit


class _Classifier(nn.Module):
    """The module as `LirpaBounds` wants it: it takes normalised images, and boxes are normalised before."""

    def __init__(self, model: nn.Module, normalize: tuple[Tensor, Tensor] | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.normalize = None if normalize is None else [t.to(dtype).view(1, -1, 1, 1) for t in normalize]

    def box(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return self.normalized(lower), self.normalized(upper)

    def normalized(self, pixels: Tensor) -> Tensor:
        return pixels if self.normalize is None else (pixels - self.normalize[0]) / self.normalize[1]

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class ForeignBounds(LirpaBounds):
    """Margin bounds of a module, as `LirpaBounds` has them of a `Network`.

    Raises:
        MissingDependencyError: auto-LiRPA is not installed.
        UnsupportedLayerError: auto-LiRPA cannot convert the module, or converts it to something else.
    """

    def __init__(
        self, model: nn.Module, input_shape: Sequence[int], normalize: tuple[Tensor, Tensor] | None = None
    ) -> None:
        dtype = next((t.dtype for t in model.parameters()), torch.float32)
        classifier = _Classifier(model, normalize, dtype).eval()
        self.images = random_images(tuple(input_shape), dtype)
        with torch.no_grad():
            expected = classifier(classifier.normalized(self.images))
            self._set(classifier, expected.shape[1], input_shape, dtype)
            with auto_lirpa_compat.quiet():
                found = self._module(optimized=False)(classifier.normalized(self.images))
        difference = (found - expected).abs().max().item() if found.shape == expected.shape else math.inf
        if not difference <= TOLERANCE * max(1.0, expected.abs().max().item()):
            raise UnsupportedLayerError(f"auto-LiRPA's graph differs from the module by {difference:.3g}")

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Of pixels [N, C, H, W]."""
        return self.module(self.module.normalized(images.to(self.dtype)))


class ForeignCertifier:
    """See `acert_zoo.bounds.certifier.Certifier`. Searches one image at a time; a radius is an eps that was proved."""

    def __init__(self, bounds: ForeignBounds, method: str, budget: float | None) -> None:
        self.bounds, self.budget = bounds, DEFAULT_BUDGET if budget is None else budget
        if not self.budget > 0:
            raise InvalidInputError(f"budget must be positive, got {budget!r} seconds")
        self.any_method = method == BoundMethod.BEST
        rest = CROWN_METHODS if self.any_method else (method,)
        self.methods = tuple(dict.fromkeys((BoundMethod.IBP, *rest)))
        self.rounding = str(bounds.dtype).removeprefix("torch.")
        self.input_shape: Sequence[int] | None = bounds.input_shape
        self.num_classes = bounds.num_classes
        model = bounds.module.model
        digest = hashlib.sha256(f"{type(model).__qualname__} {model} {bounds.module.normalize}".encode())
        for name, tensor in model.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        self.network_sha256 = digest.hexdigest()

    def __call__(self, images: Tensor, labels: Tensor | None) -> BatchCertificates:
        prediction = self.bounds.logits(images).argmax(1)
        label = prediction if labels is None else labels
        radius, margin = torch.zeros(len(images), dtype=torch.float64), torch.full((len(images),), math.nan).double()
        method = ["lirpa-ibp"] * len(images)
        for i in (prediction == label).nonzero().flatten().tolist():
            radius[i], margin[i], method[i] = self._search(images[i : i + 1], label[i : i + 1])
        return BatchCertificates(radius, margin, prediction, label, method, [self.rounding] * len(images))

    def _search(self, image: Tensor, label: Tensor) -> tuple[float, float, str]:
        """(radius, margin, method) of the largest eps that was proved within the budget."""
        deadline = time.perf_counter() + self.budget
        best = (0.0, math.nan, "lirpa-ibp")
        for method in self.methods:

            def evaluate(eps: float, method: str = method) -> float:
                nonlocal best
                if time.perf_counter() > deadline:
                    raise TimeoutError
                try:
                    value = self.bounds.margins(image, label, eps, method).item()
                except FAILURES as error:
                    raise UnsupportedLayerError(f"auto-LiRPA fails in {method}: {error}") from error
                if value > 0 and eps > best[0]:
                    best = (eps, value, f"lirpa-{method}")
                return value

            try:
                climb(evaluate, best[0], width(method))
            except TimeoutError:
                break
            except UnsupportedLayerError:  # "best" is the best of the methods that auto-LiRPA can do
                if not self.any_method or method == BoundMethod.IBP:
                    raise
        return best


def foreign_certifier(
    error: UnsupportedLayerError,
    model: nn.Module,
    shape: Sequence[int],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    method: str,
    rounding: str,
    budget: float | None,
) -> Certifier:
    """The certifier of a module that cannot be represented for the reason `error`, with a warning that says so.

    Raises:
        UnsupportedLayerError: a rounding level was asked for, or auto-LiRPA cannot convert the module either.
    """
    if rounding != RoundingLevel.FLOAT32:
        raise UnsupportedLayerError(
            f"{error}. With rounding 'float32' auto-LiRPA's bounds serve instead, if it can convert the model"
        ) from error
    try:
        certifier = ForeignCertifier(
            ForeignBounds(model, shape, channel_constants(shape[0], mean, std)), method, budget
        )
    except (UnsupportedLayerError, MissingDependencyError) as other:
        raise UnsupportedLayerError(f"{error}. Nor by auto-LiRPA: {other}") from other
    warnings.warn(
        f"{error}. auto-LiRPA bounds the model instead, in {certifier.rounding}: nothing is proved about the rounding "
        "of these radii, and `acert-zoo verify` cannot prove them again",
        UnprovedRoundingWarning,
        stacklevel=4,  # the caller of certify
    )
    return certifier
