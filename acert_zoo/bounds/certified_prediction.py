"""Predictions with a guarantee at a fixed radius: one forward pass and one rigorous bound, for use in a service."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.data.checks import check_eval_mode, check_images, uncompiled
from acert_zoo.exact_numbers import parse_pixel_eps, round_down, round_up
from acert_zoo.network.torch_defaults import under_standard_defaults
from acert_zoo.network.tracing import trace
from acert_zoo.rounding import RoundingLevel

_cache: weakref.WeakKeyDictionary[nn.Module, dict[str, tuple[Any, RigorousNetwork]]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class CertifiedPrediction:
    """Answers to N images.

    Attributes:
        label: int64 [N], argmax of the model's logits.
        certified: bool [N], whether no image within `eps` (l-inf, pixel units, exact) gets another label.
        radius: float64 [N], the largest float64 radius <= eps that this shows: eps where certified, else 0.
            (`certify` finds the largest provable radius, at several times the cost.)
        eps: the radius asked about.
        rounding: what the guarantee is about; see docs/soundness.md.
    """

    label: Tensor
    certified: Tensor
    radius: Tensor
    eps: Fraction
    rounding: str

    def to_dict(self) -> Mapping[str, Any]:
        """Plain lists, for JSON."""
        return {
            "label": self.label.tolist(),
            "certified": self.certified.tolist(),
            "radius": self.radius.tolist(),
            "eps": str(self.eps),
            "rounding": self.rounding,
        }


@under_standard_defaults
@torch.no_grad()
def predict_certified(
    model: nn.Module, images: Tensor, eps: str | int | float | Fraction, *, rounding: str = RoundingLevel.REAL_SOUND
) -> CertifiedPrediction:
    """Labels, and whether each is proved not to change within `eps`.

    The float64 copy of the network is kept between calls, until a parameter is changed (by an operation that torch's
    version counters see: everything but edits through `.data`).

    Args:
        model: a model of the zoo, a cascade, or another supported classifier, in eval mode, on the CPU.
        images: raw pixels float32 [N, C, H, W] in [0, 1].
        eps: radius in pixel units; "2/255" is taken exactly.
        rounding: "real-sound" or "float32-deployed".

    Raises:
        InvalidInputError: images or eps cannot be used.
        UnsoundSettingError, UnsupportedLayerError: the guarantee cannot be given; see `RigorousNetwork`.
    """
    exact = parse_pixel_eps(eps)
    images, _ = check_images(images, None, getattr(model, "input_shape", None))
    module = uncompiled(model, rounding)
    own = getattr(module, "prover", None)  # a model that is no single network proves its answers itself
    prover = own(rounding=rounding) if callable(own) else _rigorous(module, rounding, images)
    label = model(images).argmax(1)
    wanted = torch.full((len(images),), round_up(exact), dtype=torch.float64)
    certified = prover.proves(images, label, wanted)
    radius = torch.where(certified, torch.tensor(round_down(exact), dtype=torch.float64), 0.0)
    return CertifiedPrediction(label, certified, radius, exact, rounding)


def _rigorous(model: nn.Module, rounding: str, images: Tensor) -> RigorousNetwork:
    state = _state(model)
    kept = _cache.setdefault(model, {})
    if rounding not in kept or kept[rounding][0] != state:
        shape = getattr(model, "input_shape", None) or tuple(images.shape[1:])
        kept[rounding] = (state, RigorousNetwork(trace(model, shape).detach(), rounding))
    return kept[rounding][1]


def _state(model: nn.Module) -> list[tuple[int, int]]:
    """What changes when a weight does; one walk over the modules, which are also checked to be in eval mode."""
    state = []
    for module in model.modules():
        if module.training:
            check_eval_mode(model)
        for tensors in (module._parameters, module._buffers):
            state += [(t.data_ptr(), t._version) for t in tensors.values() if t is not None]
    return state
