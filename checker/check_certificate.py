"""Checks certificates and verdicts of acert-zoo without acert-zoo: Python integers, numpy arrays of them, nothing else.

    python checker/check_certificate.py FILE --weights W.safetensors --config CONFIG.json --images IMAGES.npy

FILE was written by `acert-zoo certify --out` or `acert-zoo decide --out`. IMAGES.npy holds float32 pixels [N, C, H, W];
images are found by their sha256. CONFIG.json is the model's (key "arch_kwargs": convs, a list of [width, stride] or
[width, stride, kernel]), or the registry zoo.json. Networks: chains as architecture "cnn" builds them.

Arithmetic. There is no floating point. A float32 number is an integer over a power of two. Values of the network are
kept between layers as integers over 2^F, lower ends rounded down and upper ends up; inner products are exact. Linear
bounds are carried backward exactly: coefficients are integers over a power of two that grows, constants are Fractions.

Rules. Affine: centre and radius of a box. ReLU of z in [l, u], l < 0 < u, with coefficient a: relu(z) >= s z for a > 0,
any 0 <= s <= 1; relu(z) <= t z + max(-t l, (1 - t) u) for a < 0, any 0 <= t <= 1. A constraint s_i z_i >= 0 of a leaf
clips the box of z_i, and, b >= 0, adds -b s_i z_i <= 0. The leaves of a whole binary tree, each inner node of which
splits one neuron by its sign, cover the box. Proved: every f_label - f_t > 0 on {x' : |x' - x| <= eps, 0 <= x' <= 1}.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import struct
import sys
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

F = 64  # bits after the point of values between layers
G = 32  # of slopes
LEVELS = 255
NOT_COVERED = "not covered"
Boxes = list[tuple[np.ndarray, np.ndarray]]
Constraints = dict[int, list[tuple[int, int, float]]]  # of each box: (place, sign, multiplier)


class Refused(Exception):
    """The claim does not hold, or is not backed by what is there."""


def exact(array: Any) -> tuple[np.ndarray, int]:
    """(integers, s) with array = integers / 2^s, exactly."""
    ratios = [float(v).as_integer_ratio() for v in np.asarray(array).ravel().tolist()]  # refuses NaN and infinity
    s = max((q.bit_length() - 1 for _, q in ratios), default=0)
    values = np.empty(len(ratios), dtype=object)
    values[:] = [p << (s - (q.bit_length() - 1)) for p, q in ratios]
    return values.reshape(np.asarray(array).shape), s


class Layer:
    """A convolution or a linear layer; weights and bias as integers over 2^s."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray, stride: int = 1, padding: int = 0) -> None:
        joined, self.s = exact(np.concatenate([weight.ravel(), bias.ravel()]))
        self.weight, self.bias = joined[: weight.size].reshape(weight.shape), joined[weight.size :]
        self.stride, self.padding, self.conv = stride, padding, weight.ndim == 4
        self.shift = self.bias.reshape(-1, 1, 1) if self.conv else self.bias

    def times(self, x: np.ndarray, absolute: bool = False) -> np.ndarray:
        """W x or |W| x, without the bias; x [C, H, W] or [n]."""
        weight = np.abs(self.weight) if absolute else self.weight
        if not self.conv:
            return weight.dot(x.ravel())
        k, p, t = weight.shape[2], self.padding, self.stride
        padded = np.zeros((x.shape[0], x.shape[1] + 2 * p, x.shape[2] + 2 * p), dtype=object)
        padded[:, p : p + x.shape[1], p : p + x.shape[2]] = x
        height, width = ((n - k) // t + 1 for n in padded.shape[1:])
        out = np.zeros((weight.shape[0], height * width), dtype=object)
        for i in range(k):
            for j in range(k):
                part = padded[:, i : i + (height - 1) * t + 1 : t, j : j + (width - 1) * t + 1 : t]
                out = out + weight[:, :, i, j].dot(part.reshape(x.shape[0], -1))
        return out.reshape(-1, height, width)

    def box(self, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Box of W x + b."""
        center, radius = self.times(lower + upper), self.times(upper - lower, absolute=True)
        shift = self.shift << (F + 1)
        return (center - radius + shift) >> (self.s + 1), -(-(center + radius + shift) >> (self.s + 1))


class Claim:
    """S rows: target >= sum of a v / 2^bits + const, v a layer's values; a [S, n], or [S, C, h, w] on a window."""

    def __init__(self, a: np.ndarray, bits: int, const: list[Fraction], row: int = 0, column: int = 0) -> None:
        self.a, self.bits, self.const, self.row, self.column = a, bits, const, row, column

    def add(self, amounts: np.ndarray, bits: int) -> None:
        """Adds to each row's constant the sum of its amounts over 2^bits."""
        sums = amounts.reshape(len(amounts), -1).sum(axis=1)
        self.const = [c + Fraction(int(v), 1 << bits) for c, v in zip(self.const, sums, strict=True)]

    def cut(self, x: np.ndarray) -> np.ndarray:
        """The window of a value."""
        if self.a.ndim == 2:
            return x.ravel()
        return x[:, self.row : self.row + self.a.shape[2], self.column : self.column + self.a.shape[3]]

    def affine(self, layer: Layer, shape: tuple[int, ...]) -> None:
        """From W v + b to v, which has `shape`."""
        self.add(self.a * layer.shift, self.bits + layer.s)
        self.bits += layer.s
        if not layer.conv:
            self.a = self.a.dot(layer.weight)
            if len(shape) == 3:
                self.a, self.row, self.column = self.a.reshape(len(self.a), *shape), 0, 0
            return
        k, t = layer.weight.shape[2], layer.stride
        rows, _, h, w = self.a.shape
        new = np.zeros((rows, layer.weight.shape[1], (h - 1) * t + k, (w - 1) * t + k), dtype=object)
        for i in range(k):
            for j in range(k):
                part = np.tensordot(self.a, layer.weight[:, :, i, j], axes=(1, 0)).transpose(0, 3, 1, 2)
                new[:, :, i : i + (h - 1) * t + 1 : t, j : j + (w - 1) * t + 1 : t] += part
        row, column = self.row * t - layer.padding, self.column * t - layer.padding
        top, left = max(0, -row), max(0, -column)  # what hangs over the border meets zeros
        self.a = new[:, :, top : shape[1] - row, left : shape[2] - column]
        self.row, self.column = row + top, column + left

    def relu(self, lower: np.ndarray, upper: np.ndarray, slope: np.ndarray | None) -> None:
        """From relu(z) to z in [lower, upper]; `slope`: of the lower line, integers over 2^G; default 1 or 0."""
        low, high = self.cut(lower), self.cut(upper)
        one, open_ = 1 << G, (low < 0) & (high > 0)
        below = np.where(high > -low, one, 0) if slope is None else self.cut(slope)
        chord = np.where(open_, (high << G) // np.where(open_, high - low, 1), 0)
        below, chord = (np.where(low >= 0, one, np.where(high <= 0, 0, s)) for s in (below, chord))
        loss = np.where(open_, np.maximum(-chord * low, (one - chord) * high), 0)
        negative = np.where(self.a < 0, self.a, 0)
        self.add(negative * loss, self.bits + G + F)
        self.a, self.bits = np.where(self.a > 0, self.a * below, self.a * chord), self.bits + G

    def concretise(self, lower: np.ndarray, upper: np.ndarray) -> list[Fraction]:
        """Lower bounds of the targets, the value being in the box."""
        self.add(np.where(self.a > 0, self.a * self.cut(lower), self.a * self.cut(upper)), self.bits + F)
        return self.const


class Network:
    """Normalize, then affine layers with a ReLU between every two; weights from a safetensors file."""

    def __init__(self, content: bytes, convs: list[list[int]]) -> None:
        (length,) = struct.unpack_from("<Q", content)
        header = json.loads(content[8 : 8 + length])
        tensors: dict[str, np.ndarray] = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            if entry["dtype"] != "F32":
                raise Refused(f"{name} has dtype {entry['dtype']}; F32 is read")
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            tensors[name.removeprefix("layers.")] = np.frombuffer(content[begin:end], "<f4").reshape(entry["shape"])
        order = sorted({int(name.split(".")[0]) for name in tensors})
        self.mean, self.std = tensors[f"{order[0]}.mean"], tensors[f"{order[0]}.std"]
        self.layers = []
        for position, number in enumerate(order[1:]):
            weight, bias = tensors[f"{number}.weight"], tensors[f"{number}.bias"]
            conv = weight.ndim == 4
            if conv != (position < len(convs)):
                raise Refused("the configuration has another number of convolutions than the weights")
            place = (convs[position][1], (weight.shape[2] - 1) // 2) if conv else (1, 0)
            self.layers.append(Layer(weight, bias, *place))
        self.classes = len(self.layers[-1].bias)

    def input_box(self, image: np.ndarray, eps: Fraction) -> tuple[np.ndarray, np.ndarray]:
        """Box of the normalised pixels, F bits."""
        ends = []
        for sign in (-1, 1):
            out = np.empty(image.shape, dtype=object)
            for place, pixel in np.ndenumerate(image):
                mean, std = (Fraction(float(v[place[0]])) for v in (self.mean, self.std))
                if std <= 0:
                    raise Refused("std must be positive")
                value = (min(max(Fraction(float(pixel)) + sign * eps, Fraction(0)), Fraction(1)) - mean) / std * 2**F
                out[place] = value.__floor__() if sign < 0 else value.__ceil__()
            ends.append(out)
        return ends[0], ends[1]

    def boxes(self, image: np.ndarray, eps: Fraction, refine: bool) -> Boxes:
        """Boxes of the normalised input and of every layer's output but the last, tightened by CROWN if `refine`."""
        found = [self.input_box(image, eps)]
        for index, layer in enumerate(self.layers[:-1]):
            found.append(layer.box(*((np.maximum(end, 0) for end in found[-1]) if index else found[-1])))
            if refine and index:
                self._tighten(found)
        return found

    def _tighten(self, found: Boxes) -> None:
        lower, upper = found[-1]
        for place in zip(*((lower < 0) & (upper > 0)).nonzero(), strict=True):
            at = (slice(None), place[0], 0, 0) if lower.ndim == 3 else (slice(None), place[0])
            a = np.zeros((2, lower.shape[0], 1, 1) if lower.ndim == 3 else (2, lower.shape[0]), dtype=object)
            a[at] = [1, -1]
            begin = place[1:] if lower.ndim == 3 else (0, 0)
            low, high = self.pull(Claim(a, 0, [Fraction(0)] * 2, *map(int, begin)), found, len(found) - 1)
            lower[place] = max(lower[place], (low * 2**F).__floor__())
            upper[place] = min(upper[place], (-high * 2**F).__ceil__())

    def pull(
        self, claim: Claim, boxes: Boxes, index: int, slopes: Any = None, constraints: Constraints | None = None
    ) -> list[Fraction]:
        """Bounds of a claim about the output of layer `index` - 1; slopes: an array for each ReLU."""
        for number in range(index - 1, -1, -1):
            claim.affine(self.layers[number], boxes[number][0].shape)
            if number == 0:
                break
            lower, upper = boxes[number]
            own = [] if constraints is None else constraints.get(number, [])
            if own:
                lower, upper = lower.copy(), upper.copy()
                for place, sign, _ in own:
                    if sign > 0:
                        lower.flat[place] = max(lower.flat[place], 0)
                    else:
                        upper.flat[place] = min(upper.flat[place], 0)
            claim.relu(lower, upper, None if slopes is None else slopes[number - 1])
            for place, sign, multiplier in own:  # rounded down: any multiplier >= 0 will do
                flat = claim.a.reshape(len(claim.a), -1)
                flat[:, place] -= sign * (Fraction(multiplier) * (1 << claim.bits)).__floor__()
                claim.a = flat.reshape(claim.a.shape)
        return claim.concretise(*boxes[0])

    def logits(self, point: np.ndarray) -> tuple[list[int], list[int]]:
        """Lower and upper ends of the logits at one point, F bits."""
        lower, upper = self.layers[-1].box(*(np.maximum(end, 0) for end in self.boxes(point, Fraction(0), False)[-1]))
        return list(lower), list(upper)

    def row(self, label: int, other: int) -> Claim:
        """f_label - f_other."""
        a = np.zeros((1, self.classes), dtype=object)
        a[0, label], a[0, other] = 1, -1
        return Claim(a, 0, [Fraction(0)])


def smallest_margin(network: Network, image: np.ndarray, label: int, eps: Fraction, method: str) -> Fraction:
    """Lower bound of every f_label - f_t by "ibp", "crown-ibp" or "crown"."""
    boxes = network.boxes(image, eps, method == "crown")
    bounds = []
    for other in set(range(network.classes)) - {label}:
        claim = network.row(label, other)
        if method == "ibp":
            claim.affine(network.layers[-1], boxes[-1][0].shape)
            bounds += claim.concretise(*(np.maximum(end, 0) for end in boxes[-1]))
        else:
            bounds += network.pull(claim, boxes, len(boxes))
    return min(bounds)


def unpack(data: bytes) -> tuple[bool, np.ndarray, list[tuple[list[int], np.ndarray, list[float]]]]:
    """(refine, neurons, (tree, slopes, multipliers) of each row) of a packed proof; see docs/decide.md."""
    if data[:8] != b"acertP1\n":
        raise Refused("no packed proof")
    (length,) = struct.unpack_from("<I", data, 8)
    header = json.loads(data[12 : 12 + length])
    body, place, rows = zlib.decompress(data[12 + length :]), 0, []

    def take(kind: str, count: int) -> np.ndarray:
        nonlocal place
        array = np.frombuffer(body, kind, count, place)
        place += array.nbytes
        return array

    neurons = take("<i4", columns := header["neurons"])
    for t, s, m in header["rows"]:
        tree, slopes, multipliers = take("<i4", t).tolist(), take("u1", s * columns), take("<f4", m).tolist()
        rows.append((tree, slopes.reshape(s, columns), multipliers))
    if place != len(body):
        raise Refused("the proof has another length than its header says")
    return header["refine"], neurons, rows


def tree_leaves(tree: list[int], neurons: int) -> list[list[tuple[int, int]]]:
    """The constraints (neuron, sign) of each leaf of one whole tree in preorder, -1 for a leaf."""
    found: list[list[tuple[int, int]]] = []
    stack: list[list[tuple[int, int]]] = [[]]
    for number in tree:
        if not stack or not -1 <= number < neurons:
            raise Refused("no tree of splits")
        path = stack.pop()
        if number < 0:
            found.append(path)
        else:
            stack += [[*path, (number, -1)], [*path, (number, 1)]]
    if stack:
        raise Refused("the tree of splits is not whole: cases are missing")
    return found


def proved_margin(network: Network, image: np.ndarray, label: int, eps: Fraction, data: bytes) -> Fraction:
    """Lower bound of every f_label - f_t by a packed proof."""
    refine, neurons, rows = unpack(data)
    boxes = network.boxes(image, eps, refine)
    sizes = [box[0].size for box in boxes[1:]]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    others, bounds = [t for t in range(network.classes) if t != label], []
    if len(rows) != len(others):
        raise Refused("the proof has another number of rows than the claim")
    for other, (tree, own, multipliers) in zip(others, rows, strict=True):
        left = list(multipliers)
        for leaf, path in enumerate(tree_leaves(tree, sum(sizes))):
            constraints: Constraints = {}
            slopes = None
            for number, sign in path:
                layer, multiplier = max(i for i, start in enumerate(starts) if start <= number), left.pop(0)
                if not 0 <= multiplier < float("inf"):
                    raise Refused("a multiplier is negative or not finite")
                constraints.setdefault(layer + 1, []).append((number - starts[layer], sign, multiplier))
            if len(own):
                flat = np.concatenate([np.where(box[1] > -box[0], 1 << G, 0).ravel() for box in boxes[1:]]).astype(
                    object
                )
                flat[neurons] = [(int(v) << G) // LEVELS for v in own[leaf]]
                slopes = [flat[s : s + n].reshape(b[0].shape) for s, n, b in zip(starts, sizes, boxes[1:], strict=True)]
            bounds += network.pull(network.row(label, other), boxes, len(boxes), slopes, constraints)
    return min(bounds)


def check_refutation(network: Network, image: np.ndarray, label: int, eps: Fraction, data: bytes) -> None:
    """An adversarial image: within eps and [0, 1], and another class has the larger logit."""
    point = np.frombuffer(data, "<f4").reshape(image.shape)
    for a, b in zip(point.ravel().tolist(), image.ravel().tolist(), strict=True):
        if not (0 <= a <= 1 and abs(Fraction(a) - Fraction(b)) <= eps):
            raise Refused("its image is not within eps")
    lower, upper = network.logits(point)
    if not max(lower) > upper[label]:
        raise Refused("its image does not refute the label")


def check_line(network: Network, image: np.ndarray, line: dict[str, Any], header: dict[str, Any], file: Path) -> str:
    """What was proved, in words; raises Refused where the line does not hold."""
    label = line["label"]
    if header["format"] == "acert-zoo-certificates":
        radius = max(Fraction(line["radius"]), Fraction(float(line["radius"])))
        if radius == 0:
            return "nothing claimed"
        known = line["method"] in ("ibp", "crown-ibp", "crown") and line["route"] is None
        if not known or line["rounding"] not in ("real-sound", "float32-deployed"):
            return NOT_COVERED
        margin = smallest_margin(network, image, label, radius, line["method"])
    else:
        eps, where = Fraction(header["eps"]), line["data"] or {"base64": ""}
        if line["status"] == "undecided":
            return "nothing claimed"
        if "base64" in where:
            data = base64.b64decode(where["base64"])
        else:
            begin, length = where["offset"], where["length"]
            data = Path(f"{file}.data").read_bytes()[begin : begin + length]
        if line["status"] == "not robust":
            check_refutation(network, image, label, eps, data)
            return "refuted"
        ibp = line["method"] == "ibp"
        margin = (
            smallest_margin(network, image, label, eps, "ibp")
            if ibp
            else proved_margin(network, image, label, eps, data)
        )
    if not margin > 0:
        raise Refused(f"label {label} is not proved: the margin bound is {float(margin):g}")
    return f"proved, margin {float(margin):.6g}"


def main() -> int:
    """Exit code 0 where every line holds (or is not covered), else 1."""
    parser = argparse.ArgumentParser(description="Checks certificates and verdicts without acert-zoo.")
    parser.add_argument("file", type=Path)
    for name in ("--weights", "--config", "--images"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--limit", type=int, help="only the first lines")
    options = parser.parse_args()
    header, *lines = (json.loads(text) for text in options.file.read_text(encoding="utf-8").splitlines())
    digest = hashlib.sha256(content := options.weights.read_bytes()).hexdigest()
    config = json.loads(options.config.read_text(encoding="utf-8"))
    if "models" in config:
        config = next(m for m in config["models"] if m["sha256"] == digest)
    if header["weights_sha256"] not in (None, digest):
        print(f"the file is about weights {header['weights_sha256']}, these are {digest}")
        return 1
    network = Network(content, config["arch_kwargs"]["convs"])
    images = {
        hashlib.sha256(x.astype("<f4").tobytes()).hexdigest(): x for x in np.load(options.images, allow_pickle=False)
    }
    bad = 0
    for line in lines[: options.limit]:
        try:
            if line["pixel_sha256"] not in images:
                raise Refused("its image is not there")
            result = check_line(network, images[line["pixel_sha256"]], line, header, options.file)
        except (Refused, ValueError, KeyError, IndexError, struct.error, zlib.error) as error:
            result, bad = f"FAILED: {error}", bad + 1
        print(f"{line['id']}: {result}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
