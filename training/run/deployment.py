"""From a run's folder to the network that is deployed: BatchNorm folded in float64, rounded once to float32."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # what torch raises for a damaged file; nothing is unpickled here
from typing import Any

import torch
from torch import Tensor, nn

from acert_zoo._files import read_plain, read_text
from acert_zoo.data.registration import dataset_info
from acert_zoo.errors import InvalidInputError, WeightsError
from acert_zoo.network import architectures
from acert_zoo.network.layers import Affine, BatchNorm
from acert_zoo.network.tracing import trace
from acert_zoo.zoo import weights
from training.recipes.recipe import Recipe
from training.run.loop import build_model
from training.run.run_folder import RunFolder

LOGIT_TOLERANCE = 2e-5  # float32 sums of 8,192 products: 1.1e-5 for one image in 1,000 of a CNN-5, 1e-6 for most


def read_run(run: Path) -> tuple[Recipe, dict[str, Any]]:
    """The resolved recipe and the last training state of a run's folder."""
    RunFolder(run).register_dataset()
    try:
        recipe = Recipe.from_dict(json.loads(read_text(run / "recipe.json")))
        state = torch.load(io.BytesIO(read_plain(run / "last.pt")), map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InvalidInputError(f"{run} is not the folder of a training run: {error.filename} is missing") from None
    except (RuntimeError, EOFError, OSError, UnpicklingError) as error:
        raise InvalidInputError(f"{run / 'last.pt'} cannot be read: {str(error)[:200]}") from error
    if not isinstance(state, dict) or not {"model", "step", "scales"} <= state.keys():
        raise InvalidInputError(f"{run / 'last.pt'} holds no training state")
    return recipe, state


def trained_model(recipe: Recipe, state: Mapping[str, Any]) -> nn.Module:
    """The network as trained, BatchNorm unfolded, in eval mode; its averaged weights where the run kept an average."""
    model = build_model(recipe)
    model.load_state_dict(state.get("ema") or state["model"])
    return model.eval()


def arch_arguments(recipe: Recipe) -> dict[str, Any]:
    """Every argument of the deployed architecture: the recipe's, and the data set's shape, classes, mean and std."""
    info = dataset_info(recipe.dataset)
    return {
        "input_shape": list(info.input_shape),
        "num_classes": info.num_classes,
        "mean": list(info.mean),
        "std": list(info.std),
        **recipe.arch_kwargs,
    }


def fold(trained: nn.Module, deployed: nn.Module) -> nn.Module:
    """Puts the weights of `trained`, with BatchNorm folded in float64, into `deployed`, the same network without it.

    Each folded float64 number is rounded once to float32; subnormals become 0 (the float32 proofs exclude them).

    Raises:
        WeightsError: BatchNorm that cannot be folded, layers that do not correspond, weights that are not finite.
    """
    folded = trace(trained).to(torch.float64).fold_batchnorm()
    left = [step.name for step in folded.steps if isinstance(step, BatchNorm)]
    if left:
        raise WeightsError(f"BatchNorm {left[0]!r} does not follow an affine layer of its own: it cannot be folded")
    source = [step for step in folded.steps if isinstance(step, Affine)]
    target = [step for step in trace(deployed).steps if isinstance(step, Affine)]
    shapes = [tuple(s.weight.shape) for s in source]
    if [type(s) for s in source] != [type(s) for s in target] or shapes != [tuple(s.weight.shape) for s in target]:
        raise WeightsError(f"the deployed architecture's layers do not match the trained ones: {shapes}")
    smallest = torch.finfo(torch.float32).tiny
    with torch.no_grad():
        for old, new in zip(source, target, strict=True):
            for value, parameter in ((old.weight, new.weight), (old.bias, new.bias)):
                rounded = value.to(torch.float32)
                if not bool(torch.isfinite(rounded).all()):
                    raise WeightsError(f"layer {old.name!r}: the folded weights are not finite")
                parameter.copy_(torch.where(rounded.abs() < smallest, torch.zeros_like(rounded), rounded))
    return deployed.eval()


@torch.no_grad()
def check_folding(trained: nn.Module, deployed: nn.Module, images: Tensor) -> float:
    """The largest relative difference of logits, in float64 for the trained and float32 for the deployed network.

    Relative to each image's largest logit. Raises WeightsError above 2e-5.
    """
    worst = 0.0
    exact = trace(trained).to(torch.float64)
    for batch in images.split(250):
        expected = exact(batch.to(torch.float64))
        difference = (deployed(batch).to(torch.float64) - expected).abs().amax(1)
        worst = max(worst, float((difference / expected.abs().amax(1).clamp(min=1e-12)).max()))
    if not worst <= LOGIT_TOLERANCE:
        raise WeightsError(
            f"the folded network's logits differ from the trained network's by {worst:.2g} relative on validation "
            f"images; at most {LOGIT_TOLERANCE:g} is accepted"
        )
    return worst


@torch.no_grad()
def round_as_trained(recipe: Recipe, deployed: nn.Module) -> nn.Module:
    """Weights (of all layers but the head) with bfloat16's eight bits, in float32, where training computed with such.

    The steps of a bfloat16 run round the folded weights in just this way, so nothing is lost, and a file whose every
    other two bytes are 0 takes half the room in a wheel.
    """
    if recipe.precision == "bfloat16":
        for step in [s for s in trace(deployed).steps if isinstance(s, Affine)][:-1]:
            step.weight.copy_(step.weight.bfloat16())
    return deployed


def deployed_model(recipe: Recipe, state: Mapping[str, Any]) -> nn.Module:
    """The network as the zoo ships it: BatchNorm folded, float32, eval mode."""
    folded = fold(trained_model(recipe, state), architectures.build(recipe.arch, **arch_arguments(recipe)))
    return round_as_trained(recipe, folded)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}


def weights_digest(model: nn.Module) -> str:
    """sha256 of the weights file without metadata: names an evaluation of a run that is not in the zoo."""
    return hashlib.sha256(weights.serialize(tensors_of(model))).hexdigest()
