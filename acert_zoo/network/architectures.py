"""The zoo's network architectures. Models take raw pixels in [0, 1]: normalisation is their first layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from acert_zoo.errors import InvalidInputError, UnknownNameError

_MAX_PARAMETERS = 200_000_000
_MAX_SIDE = 4096  # pixels


class Normalize(nn.Module):
    """(x - mean) / std per channel, elementwise, in that order (it is never folded into a zero-padded convolution)."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean.view(1, -1, 1, 1)) / self.std.view(1, -1, 1, 1)


class CNN(nn.Module):
    """Convolutions, one hidden fully connected layer, a linear head.

    Args:
        input_shape: (C, H, W) of the images.
        num_classes: number of logits K.
        mean, std: per-channel normalisation constants, length C.
        convs: (width, stride) of each convolution, 3x3 with padding 1; or (width, stride, k): k x k, padding
            (k - 1) // 2.
        hidden: width of the hidden fully connected layer.
        batchnorm: whether BatchNorm follows each convolution and the hidden layer (training) or is folded (deployed).

    Input: raw pixels [N, C, H, W] in [0, 1]; output: logits [N, K].
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        num_classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        convs: Sequence[Sequence[int]],
        hidden: int,
        batchnorm: bool = False,
    ) -> None:
        super().__init__()
        channels, height, width = input_shape
        _check_constants(channels, mean, std)
        self.input_shape = (channels, height, width)
        self.num_classes = num_classes
        _refuse_absurd_sizes(channels, height, width, convs, hidden, num_classes)
        layers: list[nn.Module] = [Normalize(mean, std)]
        for out, stride, *kernel in convs:
            k = kernel[0] if kernel else 3
            layers.append(nn.Conv2d(channels, out, k, stride=stride, padding=(k - 1) // 2))
            if batchnorm:
                layers.append(nn.BatchNorm2d(out))
            layers.append(nn.ReLU())
            channels, height, width = out, _conv_size(height, k, stride), _conv_size(width, k, stride)
        layers += [nn.Flatten(), nn.Linear(channels * height * width, hidden)]
        if batchnorm:
            layers.append(nn.BatchNorm1d(hidden))
        layers += [nn.ReLU(), nn.Linear(hidden, num_classes)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


def _check_constants(channels: int, mean: Sequence[float], std: Sequence[float]) -> None:
    if len(mean) != channels or len(std) != channels:
        raise InvalidInputError(f"mean and std need one value for each of {channels} channels, got {mean} and {std}")


def _check_limits(parameters: int, height: int, width: int) -> None:
    if parameters > _MAX_PARAMETERS:
        raise InvalidInputError(
            f"the configuration asks for {parameters:,} parameters; at most {_MAX_PARAMETERS:,} are built"
        )
    if max(height, width) > _MAX_SIDE:
        raise InvalidInputError(f"the configuration asks for {height}x{width} images; at most {_MAX_SIDE} a side")


def _conv_size(size: int, kernel: int, stride: int) -> int:
    """Outputs along one axis of a convolution with padding (kernel - 1) // 2."""
    return (size + 2 * ((kernel - 1) // 2) - kernel) // stride + 1


def _refuse_absurd_sizes(
    channels: int, height: int, width: int, convs: Sequence[Sequence[int]], hidden: int, num_classes: int
) -> None:
    """A config file is untrusted: its sizes are checked before any memory is taken."""
    numbers = [channels, height, width, hidden, num_classes, *(v for conv in convs for v in conv)]
    shaped = all(len(conv) in (2, 3) for conv in convs) and len(convs) <= 100
    if any(type(v) is not int or v < 1 for v in numbers) or not shaped:
        raise InvalidInputError(
            "architecture sizes must be positive integers, convs a list of [width, stride] or [width, stride, kernel]"
        )
    parameters, c, h, w = 0, channels, height, width
    for out, stride, *kernel in convs:
        k = kernel[0] if kernel else 3
        if k > min(h, w) + 2 * ((k - 1) // 2):
            raise InvalidInputError(f"a {k}x{k} convolution does not fit its {h}x{w} input")
        parameters += out * (k * k * c + 3)
        c, h, w = out, _conv_size(h, k, stride), _conv_size(w, k, stride)
    parameters += (c * h * w + 3) * hidden + (hidden + 1) * num_classes
    _check_limits(parameters, height, width)


def cnn7(
    *,
    input_shape: Sequence[int],
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    width: int = 64,
    hidden: int = 512,
    second_stride: bool = False,
    batchnorm: bool = False,
) -> CNN:
    """CNN-7 (Shi et al. 2021, ACERT): conv w, w, 2w/s2, 2w, 2w; fc `hidden`; fc K; `second_stride`: Tiny ImageNet."""
    convs = [(width, 1), (width, 1), (2 * width, 2), (2 * width, 1), (2 * width, 2 if second_stride else 1)]
    return CNN(
        input_shape=input_shape,
        num_classes=num_classes,
        mean=mean,
        std=std,
        convs=convs,
        hidden=hidden,
        batchnorm=batchnorm,
    )


class Residual(nn.Module):
    """ReLU(conv-BN-ReLU-conv-BN(x) + shortcut(x)); the shortcut is the identity, or a 1x1 conv-BN where sizes change.

    `channels` in, `width` out, 3x3 convolutions, the first (and the shortcut) with `stride`. Submodules are registered
    in the order in which they run.
    """

    def __init__(self, channels: int, width: int, stride: int, batchnorm: bool) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=stride, padding=1),
            *([nn.BatchNorm2d(width)] if batchnorm else []),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            *([nn.BatchNorm2d(width)] if batchnorm else []),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != width:
            self.shortcut.append(nn.Conv2d(channels, width, 1, stride=stride))
            if batchnorm:
                self.shortcut.append(nn.BatchNorm2d(width))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.main(x) + self.shortcut(x))
        return out


class ResNet(nn.Module):
    """A small residual network (He et al. 2016, arXiv 1512.03385): the accurate last stage of a cascade.

    3x3 convolution, residual blocks, mean over all positions, linear head.

    Args:
        input_shape: (C, H, W) of the images.
        num_classes: number of logits K.
        mean, std: per-channel normalisation constants, length C.
        stem: width of the first convolution.
        blocks: one (width, stride) pair for each residual block of two 3x3 convolutions.
        stem_stride: stride of the first convolution.
        batchnorm: whether BatchNorm follows each convolution (training) or is folded into it (deployed).

    Input: raw pixels [N, C, H, W] in [0, 1]; output: logits [N, K].
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        num_classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        stem: int,
        blocks: Sequence[Sequence[int]],
        stem_stride: int = 1,
        batchnorm: bool = False,
    ) -> None:
        super().__init__()
        channels, height, width = input_shape
        _check_constants(channels, mean, std)
        _refuse_absurd_resnet(channels, height, width, stem, stem_stride, blocks, num_classes)
        self.input_shape = (channels, height, width)
        self.num_classes = num_classes
        layers: list[nn.Module] = [Normalize(mean, std), nn.Conv2d(channels, stem, 3, stride=stem_stride, padding=1)]
        if batchnorm:
            layers.append(nn.BatchNorm2d(stem))
        layers.append(nn.ReLU())
        channels, height, width = stem, -(-height // stem_stride), -(-width // stem_stride)
        for out, stride in blocks:
            layers.append(Residual(channels, out, stride, batchnorm))
            channels, height, width = out, -(-height // stride), -(-width // stride)
        layers += [nn.AvgPool2d((height, width)), nn.Flatten(), nn.Linear(channels, num_classes)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


def _refuse_absurd_resnet(
    channels: int,
    height: int,
    width: int,
    stem: int,
    stem_stride: int,
    blocks: Sequence[Sequence[int]],
    num_classes: int,
) -> None:
    """As `_refuse_absurd_sizes`, for `ResNet`."""
    numbers = [channels, height, width, stem, stem_stride, num_classes, *(v for pair in blocks for v in pair)]
    if (
        any(type(v) is not int or v < 1 for v in numbers)
        or any(len(pair) != 2 for pair in blocks)
        or not 0 < len(blocks) <= 100
    ):
        raise InvalidInputError("architecture sizes must be positive integers, blocks a list of [width, stride] pairs")
    parameters, c = stem * (9 * channels + 3), stem
    for out, _ in blocks:
        parameters += out * (9 * c + 9 * out + c + 9)
        c = out
    parameters += (c + 1) * num_classes
    _check_limits(parameters, height, width)


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {"cnn": CNN, "cnn7": cnn7, "resnet": ResNet}


def build(arch: str, **kwargs: Any) -> nn.Module:
    """The architecture `arch` with random weights, in train mode.

    Raises:
        UnknownNameError: no such architecture.
        InvalidInputError: unknown or missing keyword arguments, or sizes that are not positive or absurdly large.
    """
    if arch not in ARCHITECTURES:
        raise UnknownNameError.near("architecture", arch, ARCHITECTURES)
    try:
        return ARCHITECTURES[arch](**kwargs)
    except TypeError as error:
        raise InvalidInputError(f"architecture {arch!r} cannot be built from {kwargs}: {error}") from error
