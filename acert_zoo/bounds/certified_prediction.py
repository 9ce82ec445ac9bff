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
from acert_zoo.network.graph import same_network
from acert_zoo.network.reading import Reading, read
from acert_zoo.network.torch_defaults import under_standard_defaults
from acert_zoo.network.torch_modules import known_layers
from acert_zoo.network.torch_modules.module_state import ModuleState
from acert_zoo.network.tracing import trace
from acert_zoo.rounding import RoundingLevel


@dataclass
class _Kept:
    """What is kept of a module between calls: its reading, and the float64 copies of the network, by level.

    `state` is None for a module of known layers, which is read anew in every call.
    """

    reading: Reading
    state: ModuleState | None
    rigorous: dict[str, RigorousNetwork]


_cache: weakref.WeakKeyDictionary[nn.Module, _Kept] = weakref.WeakKeyDictionary()


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

    The float64 copy of the network is kept between calls as long as the module is the same, which is looked at in every
    call: modules of known layers are read again and compared number by number, of others every tensor's contents,
    hooks, attributes and submodules are compared. Such modules are also held against their network at the images and
    inside the boxes (`acert_zoo.network.agreement`).

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
    kept = None if callable(own) else _kept(module, tuple(images.shape[1:]))
    prover = _rigorous(kept, rounding) if kept is not None else own(rounding=rounding)  # type: ignore[misc]
    logits = model(images) if kept is None else kept.reading.agreement.images(images)
    label = logits.argmax(1)
    wanted = torch.full((len(images),), round_up(exact), dtype=torch.float64)
    certified = prover.proves(images, label, wanted)
    radius = torch.where(certified, torch.tensor(round_down(exact), dtype=torch.float64), 0.0)
    if kept is not None:
        kept.reading.agreement.boxes(images, radius)
    return CertifiedPrediction(label, certified, radius, exact, rounding)


def _kept(model: nn.Module, shape: tuple[int, ...]) -> _Kept:
    """The module's reading: the one of the last call, if nothing has changed since."""
    check_eval_mode(model)
    kept = _cache.get(model)
    if kept is not None and _unchanged(kept, model):
        return kept
    known = known_layers.is_known(model)
    state = None if known else ModuleState(model)
    kept = _Kept(read(model, getattr(model, "input_shape", None) or shape), state, {})
    if state is None or state.whole:
        _cache[model] = kept
    return kept


def _unchanged(kept: _Kept, model: nn.Module) -> bool:
    if kept.state is not None:
        return kept.state.unchanged(model)
    return known_layers.is_known(model) and same_network(kept.reading.network, trace(model))


def _rigorous(kept: _Kept, rounding: str) -> RigorousNetwork:
    if rounding not in kept.rigorous:
        kept.rigorous[rounding] = RigorousNetwork(kept.reading.network, rounding)
    return kept.rigorous[rounding]
