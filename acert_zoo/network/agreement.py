"""Holds a module against the network that was read from it, on points that matter: what no trace shows shows here.

Compared are *margins* f_y - f_t, so that a bias common to all logits hides nothing, y being the network's class in
float64. What rounding explains is measured, class by class: e_t, how far the network's own float32 margins are from its
float64 ones, and s_t, the size of the two logits. A float32 module may be off by 32 e_t + 2^-20 s_t (a program of the
same layers in another order of summation is off by a few e_t, and rounds each logit by 2^-24 of itself); a float64
module by 2^-29 of that. Where this is more than 2^-9 of the margins themselves float32 shows too little: then a float64
copy of the module must agree to 2^-18 of the margins (numbers such as 0.1 in its code are float32 in the network), or
nothing is certified.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from acert_zoo.errors import InvalidInputError
from acert_zoo.network.graph import Network

Constants = tuple[Tensor, Tensor]
_WITHIN = 32.0  # times the measured rounding of the network
_LOGITS = 2.0**-20  # of the logits' size
_VISIBLE = 2.0**-9  # of the margins: what a comparison must be able to see
_COPY = 2.0**-18  # of the margins: how well a float64 copy must agree
_KNOWN = 2.0**-18  # of the logits: two float32 runs of the same layers
_FLOAT64 = 2.0**-29  # unit roundoff of float64 over that of float32
_CHUNK = 64  # images at a time
WHY = "the model's forward does something that its trace does not show, so nothing can be certified"


def normalized(images: Tensor, normalize: Constants | None) -> Tensor:
    """(images - mean) / std, or a copy of the images: a module may change its input in place."""
    if normalize is None:
        return images.clone()
    mean, std = (t.to(images.dtype).view(1, -1, *(1,) * (images.dim() - 2)) for t in normalize)
    return (images - mean) / std


def random_images(shape: Sequence[int], dtype: torch.dtype, count: int = 8) -> Tensor:
    """`count` images [count, *shape] for a first comparison: half of them uniform, half black and white."""
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(count // 2, *shape, generator=generator, dtype=torch.float32, device="cpu")
    return torch.cat([uniform, (uniform > 0.5).to(uniform.dtype)]).to(dtype)


class Agreement:
    """Compares `model`, of (images - mean) / std where these are given, with `network`, of raw pixels.

    Args:
        known: whether the module is known to do nothing but what the network does (`torch_modules/known_layers.py`):
            then one comparison at the images is made, of float32 logits.
    """

    def __init__(
        self, model: nn.Module, network: Network, normalize: Constants | None, dtype: torch.dtype, known: bool
    ) -> None:
        self.model, self.normalize, self.dtype, self.known = model, normalize, dtype, known
        self.network = network
        self._precise: tuple[Network, Network] | None = None
        self._copy: Any = None

    @torch.no_grad()
    def images(self, images: Tensor) -> Tensor:
        """The module's logits of `images` [N, C, H, W], compared: all together and (unless it is known) each alone.

        Raises:
            InvalidInputError: they differ by more than rounding, or cannot be compared.
        """
        found = self._logits(images)
        if self.known:
            self._refuse_known(found, self.network(images.to(self.dtype)))
        elif len(images):
            self._compare(images, found, f"{len(images)} images at once")
            self._compare(images, torch.cat([self._logits(image) for image in images.split(1)]), "one image alone")
        return found

    @torch.no_grad()
    def boxes(self, images: Tensor, radius: Tensor) -> None:
        """Compares within `radius` [N] of the images where it is > 0: a random corner, a random point, and the corner
        to which the margin's gradient leads.

        Raises:
            InvalidInputError: as `images`.
        """
        inside = (radius > 0).nonzero().flatten()
        if self.known or not len(inside):
            return
        generator = torch.Generator().manual_seed(len(images))
        for index in inside.split(_CHUNK):
            x = images[index]
            r = radius[index].to(x.dtype).view(-1, *(1,) * (x.dim() - 1))
            low, high = (x - r).clamp(min=0.0), (x + r).clamp(max=1.0)
            first, second = torch.rand(2, *x.shape, generator=generator, dtype=x.dtype, device="cpu")
            corner, inner = torch.where(first < 0.5, low, high), torch.lerp(low, high, second)
            points = torch.cat([corner, inner, self._descend(x, low, high)])
            self._compare(points, self._logits(points), "points of the certified boxes")

    def _descend(self, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        with torch.enable_grad():
            points = ((low + high) / 2).requires_grad_()
            logits = self.network(points.to(self.dtype))
            top = logits.topk(2, dim=1).values
            (gradient,) = torch.autograd.grad((top[:, 0] - top[:, 1]).sum(), points, allow_unused=True)
        return x if gradient is None else torch.where(gradient > 0, low, high)

    def _logits(self, images: Tensor) -> Tensor:
        try:
            out = self.model(normalized(images.to(self.dtype), self.normalize))
        except Exception as error:  # the user's own code
            raise InvalidInputError(
                f"the model cannot be run on {len(images)} of the images ({type(error).__name__}: {error})"
            ) from error
        return out if isinstance(out, Tensor) and not out.is_nested else torch.full((len(images), 1), torch.nan)

    def _compare(self, points: Tensor, found: Tensor, where: str) -> None:
        wanted = (len(points), self.network.num_classes)
        if tuple(found.shape) != wanted:
            raise InvalidInputError(
                f"the model returns logits of shape {tuple(found.shape)} ({where}), not {wanted}: {WHY}"
            )
        for part, logits in zip(points.split(_CHUNK), found.split(_CHUNK), strict=True):
            self._compare_part(part, logits, where)

    def _compare_part(self, points: Tensor, found: Tensor, where: str) -> None:
        if self._precise is None:
            self._precise = self.network.to(torch.float32), self.network.to(torch.float64)
        single, double = self._precise
        exact = double(points.double())
        label = exact.argmax(1, keepdim=True)
        margins = _margins(exact, label)
        rounding = (_margins(single(points.float()), label) - margins).abs().amax(0)
        sizes = (exact.abs() + exact.gather(1, label).abs()).amax(0)
        allowed = _WITHIN * rounding + _LOGITS * sizes
        if self.dtype == torch.float64:
            allowed = allowed * _FLOAT64
        self._refuse_beyond((_margins(found, label) - margins).abs().amax(0), allowed, where)
        scale = margins.abs().amax(0)
        some = scale[scale > 0]  # not the column of a class that is the answer everywhere
        scale = scale.clamp(min=some.median().item() if len(some) else 0.0)
        if bool((allowed > _VISIBLE * scale).any()):
            self._compare_copy(points, label, margins, _FLOAT64 * allowed + _COPY * scale, where)

    def _compare_copy(self, points: Tensor, label: Tensor, margins: Tensor, allowed: Tensor, where: str) -> None:
        try:
            if self._copy is None:
                self._copy = copy.deepcopy(self.model).double()
            found = self._copy(normalized(points.double(), self.normalize))
            if found.dtype != torch.float64 or found.shape != margins.shape:
                raise TypeError(f"it returns {found.dtype} {tuple(found.shape)}")
        except Exception as error:  # the user's own code
            raise InvalidInputError(
                "the model's logits are so large against their differences that float32 does not show whether it does "
                f"what its trace says, and it cannot be run in float64 ({type(error).__name__}: {error})"
            ) from error
        self._refuse_beyond((_margins(found, label) - margins).abs().amax(0), allowed, f"{where}, in float64")

    def _refuse_beyond(self, difference: Tensor, allowed: Tensor, where: str) -> None:
        if not bool((difference <= allowed).all()):
            worst = int((difference - allowed).nan_to_num(torch.inf).argmax())
            raise InvalidInputError(
                f"the traced network differs from the model by {difference[worst]:.3g} in a difference of logits "
                f"({where}; rounding explains {allowed[worst]:.3g}): {WHY}"
            )

    def _refuse_known(self, found: Tensor, expected: Tensor) -> None:
        if not len(expected):
            return
        label = expected.argmax(1, keepdim=True)
        sizes = expected.abs().amax(1, keepdim=True).double().cpu()
        same_form = found.shape == expected.shape
        if not same_form or not bool(
            ((_margins(found, label) - _margins(expected, label)).abs() <= _KNOWN * sizes).all()
        ):
            raise InvalidInputError(f"the network that was read differs from the model at the images: {WHY}")


def _margins(logits: Tensor, label: Tensor) -> Tensor:
    logits = logits.detach().double().cpu()
    return logits.gather(1, label) - logits
