"""Initial weights taken from another model: a training run's last state, or a checkpoint of the zoo.

A zoo checkpoint has BatchNorm folded into its weights. `unfold` puts it back: every BatchNorm gets the scale and shift
that undo its own normalisation on training images, so that training begins at the checkpoint's function.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import acert_zoo
from acert_zoo.data.datasets import to_pixels
from acert_zoo.errors import AcertZooError, InvalidInputError
from acert_zoo.network.layers import Affine
from acert_zoo.network.tracing import trace
from training.run.run_folder import RunError, RunFolder

IMAGES = 2048  # that the statistics of an unfolded BatchNorm are taken over
_Norm = (nn.BatchNorm1d, nn.BatchNorm2d)


def start_from(source: str, model: nn.Module, images: Tensor) -> None:
    """Gives `model` (with BatchNorm) the weights of `source`.

    Args:
        source: the folder of a run (its averaged weights where it kept an average), or a name that
            `acert_zoo.load_model` takes, of a model with the same layers.
        model: the recipe's network, changed in place.
        images: uint8 [N, H, W, C], training images for `unfold`; the first 2,048 are used.

    Raises:
        RunError: no such run or model, or its layers are not the recipe's.
    """
    if Path(source).is_dir() and not (Path(source) / "config.json").exists():
        state = RunFolder(Path(source)).load()
        if state is None:
            raise RunError(f"init_from: {source} holds no training state")
        try:
            model.load_state_dict(state.get("ema") or state["model"])
        except RuntimeError as error:
            raise RunError(f"init_from: the weights of {source} do not fit the recipe's network: {error}") from error
        return
    try:
        unfold(acert_zoo.load_model(source), model, to_pixels(images[:IMAGES].cpu()))
    except AcertZooError as error:
        raise RunError(
            f"init_from: {source!r} is neither the folder of a run nor a model to start from: {error}"
        ) from error


@torch.no_grad()
def unfold(deployed: nn.Module, model: nn.Module, images: Tensor) -> None:
    """The reverse of folding BatchNorm: `model` computes in eval mode what `deployed` computes, to rounding.

    Each BatchNorm's running mean m and variance v become those of its input over `images` [N, C, H, W], its scale
    sqrt(v + eps) and its shift m, which makes it the identity; in train mode it is so up to a batch's own statistics.

    Raises:
        InvalidInputError: the affine layers of the two networks differ.
    """
    source = [step for step in trace(deployed).steps if isinstance(step, Affine)]
    target = [step for step in trace(model).steps if isinstance(step, Affine)]
    shapes = [tuple(step.weight.shape) for step in source]
    if [type(s) for s in source] != [type(s) for s in target] or shapes != [tuple(s.weight.shape) for s in target]:
        raise InvalidInputError(f"its layers {shapes} are not those of the recipe's network")
    for old, new in zip(source, target, strict=True):
        new.weight.copy_(old.weight)
        new.bias.copy_(old.bias)

    def make_identity(norm: Any, inputs: tuple[Tensor, ...]) -> None:
        (x,) = inputs
        others = [axis for axis in range(x.dim()) if axis != 1]
        variance, mean = torch.var_mean(x.double(), dim=others, correction=0)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean)

    hooks = [m.register_forward_pre_hook(make_identity) for m in model.modules() if isinstance(m, _Norm)]
    training = model.training
    try:
        model.eval()(images)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
