"""The zoo's network architectures. Models take raw pixels in [0, 1]: normalisation is their first layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from acert_zoo.errors import InvalidInputError, UnknownNameError

_MAX_PARAMETERS = 200_000_000


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
    """3x3 convolutions, one hidden fully connected layer, a linear head.

    Args:
        input_shape: (C, H, W) of the images.
        num_classes: number of logits K.
        mean, std: per-channel normalisation constants, length C.
        convs: one (width, stride) pair for each convolution (3x3, padding 1).
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
        if len(mean) != channels or len(std) != channels:
            raise InvalidInputError(
                f"mean and std need one value for each of {channels} channels, got {mean} and {std}"
            )
        self.input_shape = (channels, height, width)
        self.num_classes = num_classes
        _refuse_absurd_sizes(channels, height, width, convs, hidden, num_classes)
        layers: list[nn.Module] = [Normalize(mean, std)]
        for out, stride in convs:
            layers.append(nn.Conv2d(channels, out, 3, stride=stride, padding=1))
            if batchnorm:
                layers.append(nn.BatchNorm2d(out))
            layers.append(nn.ReLU())
            channels, height, width = out, -(-height // stride), -(-width // stride)
        layers += [nn.Flatten(), nn.Linear(channels * height * width, hidden)]
        if batchnorm:
            layers.append(nn.BatchNorm1d(hidden))
        layers += [nn.ReLU(), nn.Linear(hidden, num_classes)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def _refuse_absurd_sizes(
    channels: int, height: int, width: int, convs: Sequence[Sequence[int]], hidden: int, num_classes: int
) -> None:
    """A config file is untrusted: its sizes are checked before any memory is taken."""
    numbers = [channels, height, width, hidden, num_classes, *(v for pair in convs for v in pair)]
    if any(type(v) is not int or v < 1 for v in numbers) or any(len(pair) != 2 for pair in convs) or len(convs) > 100:
        raise InvalidInputError("architecture sizes must be positive integers, convs a list of [width, stride] pairs")
    parameters, c, h, w = 0, channels, height, width
    for out, stride in convs:
        parameters += out * (9 * c + 3)
        c, h, w = out, -(-h // stride), -(-w // stride)
    parameters += (c * h * w + 3) * hidden + (hidden + 1) * num_classes
    if parameters > _MAX_PARAMETERS or max(height, width) > 4096:
        raise InvalidInputError(
            f"the configuration asks for {parameters:,} parameters; at most {_MAX_PARAMETERS:,} are built"
        )


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
    """CNN-7 of Shi et al. 2021 and ACERT: conv w, w, 2w/s2, 2w, 2w; fc `hidden`; fc K. `second_stride`: Tiny ImageNet."""
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


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {"cnn": CNN, "cnn7": cnn7}


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
