"""Robustness properties for other verifiers: VNN-LIB files, the ONNX network, instances.csv; VNN-COMP's layout.

A property describes what must *not* happen: some pixels within the box, and some other class with a logit at least the
label's. "unsat" from a verifier is therefore a proof of robustness. Bounds are the exact x - eps and x + eps, cut with
[0, 1], printed with 17 digits and rounded outward: a verifier that proves the file proves the ball.

Every property is written twice: in VNN-LIB 1.0 (vnnlib/, instances.csv), which the tools of the competitions up to 2025
read, and in VNN-LIB 2.0 (vnnlib2/, instances_v2.csv).
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from pathlib import Path

from torch import Tensor, nn

from acert_zoo._files import write_atomically
from acert_zoo.data.checks import check_images
from acert_zoo.errors import InvalidInputError
from acert_zoo.exact_numbers import parse_eps
from acert_zoo.network.onnx.files import check_one_network, export_onnx
from acert_zoo.network.reading import read

DIGITS = 17
NETWORK = "onnx/network.onnx"
EXPORTED = (NETWORK, "instances.csv", "instances_v2.csv", "vnnlib/property_*.vnnlib", "vnnlib2/property_*.vnnlib")


def export_vnnlib(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | None,
    eps: str | float | Fraction | None,
    folder: str | os.PathLike[str],
    *,
    timeout: int = 300,
    input_shape: tuple[int, ...] | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Writes FOLDER/instances.csv, FOLDER/onnx/network.onnx, and FOLDER/vnnlib/property_N.vnnlib for image N.

    Images whose label is not the model's answer are left out: their property is refuted by the image itself.

    Args:
        model: in eval mode, raw pixels in.
        images, labels: pixels float32 [N, C, H, W] in [0, 1], int64 [N] (None: the model's own predictions).
        eps: radius in pixel units; "2/255" is that fraction.
        timeout: seconds, the last column of instances.csv.
        input_shape: (C, H, W), where the model does not say it.
        overwrite: whether what an earlier call wrote into the folder is replaced, all of it.

    Returns:
        The VNN-LIB 1.0 files, in the order of the images.

    Raises:
        InvalidInputError: images, labels or eps cannot be used, no image is classified as labelled, the folder's
            parent does not exist, or the folder holds an earlier export and is not to be overwritten.
        MissingDependencyError, UnsupportedLayerError, UnsoundSettingError: see `export_onnx`.
    """
    if eps is None:
        raise InvalidInputError("a property needs a radius: give eps")
    exact = parse_eps(eps)
    check_one_network(model)
    shape = input_shape or getattr(model, "input_shape", None) or tuple(images.shape[1:])
    reading = read(model, shape)
    network = reading.network
    images, labels = check_images(images, labels, shape, network.num_classes)
    reading.agreement.images(images)
    dtype = network.head.weight.dtype
    answers = network(images.to(dtype)).argmax(1)
    targets = answers if labels is None else labels
    answered = (answers == targets).tolist()
    if answered and not any(answered):
        raise InvalidInputError("none of the images is classified as it is labelled: no property could hold")
    root = Path(folder)
    if not root.parent.is_dir():
        raise InvalidInputError(f"{str(folder)!r}: the folder it lies in does not exist")
    earlier = [f for pattern in EXPORTED for f in root.glob(pattern)]
    if earlier and not overwrite:
        raise InvalidInputError(
            f"{str(earlier[0])!r} exists; an earlier export is replaced with overwrite=True (--force)"
        )
    for part in (root, root / "onnx", root / "vnnlib", root / "vnnlib2"):
        part.mkdir(exist_ok=True)
    for file in earlier:  # a property of another network beside this one would be wrong without a word
        file.unlink()
    export_onnx(model, root / NETWORK, shape)
    files = []
    for i in range(len(images)):
        if answered[i]:
            prop = RobustnessProperty(images[i], int(targets[i]), exact, network.num_classes)
            file = root / "vnnlib" / f"property_{i}.vnnlib"
            write_atomically(file, prop.vnnlib1().encode())
            write_atomically(root / "vnnlib2" / file.name, prop.vnnlib2(str(dtype).removeprefix("torch.")).encode())
            files.append(file)
    for name, subfolder in (("instances.csv", "vnnlib"), ("instances_v2.csv", "vnnlib2")):
        rows = [f"{NETWORK},{subfolder}/{file.name},{timeout}\n" for file in files]
        write_atomically(root / name, "".join(rows).encode())
    return files


@dataclass(frozen=True)
class RobustnessProperty:
    """That `label` is not the only answer somewhere in the box: what a verifier is to refute.

    Attributes:
        image: exact pixels [C, H, W]; eps: exact radius; variables are numbered in C, H, W order.
    """

    image: Tensor
    label: int
    eps: Fraction
    num_classes: int

    def bounds(self) -> list[tuple[str, str]]:
        """(lower, upper) of every pixel as decimals, rounded outward."""
        exact = [Fraction(float(v)) for v in self.image.flatten()]
        return [
            (
                outward(max(x - self.eps, Fraction(0)), upward=False),
                outward(min(x + self.eps, Fraction(1)), upward=True),
            )
            for x in exact
        ]

    def vnnlib1(self) -> str:
        """The text in VNN-LIB 1.0."""
        bounds = self.bounds()
        lines = [self._comment()]
        lines += [f"(declare-const X_{i} Real)" for i in range(len(bounds))]
        lines += [f"(declare-const Y_{t} Real)" for t in range(self.num_classes)]
        for i, (low, high) in enumerate(bounds):
            lines += [f"(assert (>= X_{i} {low}))", f"(assert (<= X_{i} {high}))"]
        cases = " ".join(f"(and (>= Y_{t} Y_{self.label}))" for t in self._others())
        return "\n".join([*lines, f"(assert (or {cases}))"]) + "\n"

    def vnnlib2(self, element: str = "float32") -> str:
        """The text in VNN-LIB 2.0, for a network whose numbers are of type `element`."""
        shape = (1, *self.image.shape)
        lines = ["(vnnlib-version <2.0>)", self._comment(), "(declare-network N"]
        lines.append(f"  (declare-input X {element} [{', '.join(map(str, shape))}])")
        lines += [f"  (declare-output Y {element} [1, {self.num_classes}])", ")"]
        places = itertools.product(*(range(d) for d in shape))
        for place, (low, high) in zip(places, self.bounds(), strict=True):
            name = f"X[{','.join(map(str, place))}]"
            lines += [f"(assert (>= {name} {low}))", f"(assert (<= {name} {high}))"]
        cases = " ".join(f"(and (>= Y[0,{t}] Y[0,{self.label}]))" for t in self._others())
        return "\n".join([*lines, f"(assert (or {cases}))"]) + "\n"

    def _others(self) -> list[int]:
        return [t for t in range(self.num_classes) if t != self.label]

    def _comment(self) -> str:
        return f"; label {self.label} within l-inf radius {self.eps}, pixels in [0, 1]; sat: it does not hold"


def outward(value: Fraction, *, upward: bool) -> str:
    """The nearest decimal of 17 significant digits at or above (below) `value` >= 0, without an exponent."""
    context = Context(prec=DIGITS, rounding=ROUND_CEILING if upward else ROUND_FLOOR)
    text = format(context.divide(Decimal(value.numerator), Decimal(value.denominator)), "f")
    return text if "." in text else f"{text}.0"  # VNN-LIB 2.0 takes "0" for an integer
