"""From a finished run to the zoo, in one command: python training/export.py RUN --name cifar10_kappa025.

Folds BatchNorm into the layers before it (in float64, rounded once to float32), checks the folded network against the
trained one on real validation images, writes the safetensors file, evaluates it on the test set, adds the registry
record and renders the card. The registry record is written last but for what is derived from it: a killed export
leaves the zoo as it was, and running it again completes it. The same weights again change nothing; other weights get
the next version.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # what torch raises for a damaged file; nothing is unpickled here
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
import numpy as np
import torch
from torch import Tensor, nn

from acert_zoo.data import datasets
from acert_zoo.errors import AcertZooError, InvalidInputError, WeightsError
from acert_zoo.network import architectures
from acert_zoo.network.graph import Affine, BatchNorm
from acert_zoo.network.tracing import trace
from acert_zoo.zoo import registry, weights
from acert_zoo.zoo.expected_logits import compute_fingerprint
from training import cards
from training.evaluate import evaluate_with_bar, summary
from training.evaluation import Evaluation, store_evaluation
from training.loop import build_model
from training.recipe import Recipe
from training.zoo_folder import ZooFolder, write_atomic

LOGIT_TOLERANCE = 1e-5
LICENSE = "Apache-2.0"


def read_run(run: Path) -> tuple[Recipe, dict[str, Any]]:
    """The resolved recipe and the last training state of a run's folder."""
    try:
        recipe = Recipe.from_dict(json.loads((run / "recipe.json").read_text(encoding="utf-8")))
        state = torch.load(run / "last.pt", map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InvalidInputError(f"{run} is not the folder of a training run: {error.filename} is missing") from None
    except (RuntimeError, EOFError, OSError, UnpicklingError) as error:
        raise InvalidInputError(f"{run / 'last.pt'} cannot be read: {str(error)[:200]}") from error
    if not isinstance(state, dict) or not {"model", "step"} <= state.keys() or not {"scales", "radii"} & state.keys():
        raise InvalidInputError(f"{run / 'last.pt'} holds no training state")
    return recipe, state


def trained_model(recipe: Recipe, state: Mapping[str, Any]) -> nn.Module:
    """The network as trained, BatchNorm unfolded, in eval mode; its averaged weights where the run kept an average."""
    model = build_model(recipe)
    model.load_state_dict(state.get("ema") or state["model"])
    return model.eval()


def arch_arguments(recipe: Recipe) -> dict[str, Any]:
    """Every argument of the deployed architecture: the recipe's, and the data set's shape, classes, mean and std."""
    info = datasets.dataset_info(recipe.dataset)
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

    Relative to each image's largest logit. Raises WeightsError above 1e-5.
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


def deployed_model(recipe: Recipe, state: Mapping[str, Any]) -> nn.Module:
    """The network as the zoo ships it: BatchNorm folded, float32, eval mode."""
    return fold(trained_model(recipe, state), architectures.build(recipe.arch, **arch_arguments(recipe)))


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}


def weights_digest(model: nn.Module) -> str:
    """sha256 of the weights file without metadata: names an evaluation of a run that is not in the zoo."""
    return hashlib.sha256(weights.serialize(tensors_of(model))).hexdigest()


def recipe_digest(recipe: Recipe) -> str:
    return hashlib.sha256(json.dumps(recipe.to_dict(), sort_keys=True).encode()).hexdigest()


def epochs_done(recipe: Recipe, state: Mapping[str, Any]) -> int:
    """Whole epochs that the saved state has behind it (a log may run ahead of it after a kill)."""
    per_image = state["scales"] if "scales" in state else state["radii"]  # radii: runs begun before 0.1.0
    steps_per_epoch = len(per_image) // recipe.batch_size
    return int(state["step"]) // max(steps_per_epoch, 1)


def provenance(run: Path, recipe: Recipe, state: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of how the run was made: seconds, epochs, threads, versions, git commit."""
    known: dict[str, Any] = {}
    if (run / "environment.json").is_file():
        known = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    return {
        "seconds": round(float(state.get("seconds", 0.0)), 1),
        "epochs": min(recipe.epochs, epochs_done(recipe, state)),
        **{
            key: known[key]
            for key in ("device", "threads", "processes", "versions", "commit")
            if known.get(key) is not None
        },
    }


def measured(info: registry.ModelInfo) -> int:
    """How many test images the record's accuracy is of."""
    accuracy = info.metric("accuracy")
    return accuracy.n if accuracy else 0


@dataclass(frozen=True)
class Exported:
    """What an export did: `changed` is False where these weights, and figures of as many images, were there already."""

    info: registry.ModelInfo
    changed: bool
    evaluation: Evaluation | None


def export(
    run: Path,
    name: str,
    *,
    zoo: ZooFolder | None = None,
    data_root: str | None = None,
    limit: int | None = None,
    unfinished: bool = False,
    log: Any = lambda text: None,
) -> Exported:
    """Exports the run in `run` as `name`; see the module's docstring.

    Args:
        limit: evaluate only the first `limit` test images (trials: n stands beside every number; the same export
            without it replaces them).

    Raises:
        InvalidInputError: no run, an unfinished one, or a name that does not suit the registry.
        WeightsError: the folded network is not the trained one.
    """
    zoo = zoo or ZooFolder()
    recipe, state = read_run(run)
    done = epochs_done(recipe, state)
    if done < recipe.epochs and not unfinished:
        raise InvalidInputError(
            f"{run} has finished {done} of {recipe.epochs} epochs; resume it, or export it with --unfinished"
        )
    trained = trained_model(recipe, state)
    model = fold(trained, architectures.build(recipe.arch, **arch_arguments(recipe)))
    validation, _ = datasets.load_split(recipe.dataset, "val", data_root)
    worst = check_folding(trained, model, datasets.to_pixels(np.array(validation[:1000])))
    log(f"folded; logits differ by {worst:.1g} relative on validation images")
    training = provenance(run, recipe, state)
    metadata = {
        "name": name,
        "kappa": repr(recipe.kappa),
        "arch": recipe.arch,
        "dataset": recipe.dataset,
        "commit": str(training.get("commit", "unknown")),
        "recipe": recipe_digest(recipe),
    }
    content = weights.serialize(tensors_of(model), metadata)
    sha256 = hashlib.sha256(content).hexdigest()
    versions = [m for m in registry.read_registry(zoo.registry) if m.name == name]
    same = next((m for m in versions if m.sha256 == sha256), None)
    if same is not None and measured(same) >= (limit or len(datasets.load_split(recipe.dataset, "test", data_root)[1])):
        write_atomic(zoo.checkpoint(name, same.version), content)
        cards.render_all(zoo)
        return Exported(same, False, None)
    version = same.version if same is not None else max((m.version for m in versions), default=0) + 1
    path = zoo.checkpoint(name, version)
    record: dict[str, Any] = {
        "name": name,
        "version": version,
        "kind": "model",
        "arch": recipe.arch,
        "arch_kwargs": arch_arguments(recipe),
        "dataset": recipe.dataset,
        "method": recipe.objective,
        "kappa": recipe.kappa,
        "eps_max": recipe.radius.eps_max,
        "file": path.relative_to(zoo.package).as_posix(),
        "sha256": sha256,
        "size": len(content),
        "parameters": sum(p.numel() for p in model.parameters()),
        "fingerprint": compute_fingerprint(model, arch_arguments(recipe)["input_shape"]),
        "recipe": recipe.to_dict(),
        "training": training,
        "license": LICENSE,
        "hub": None,
    }
    registry.ModelInfo.from_dict(record)  # a bad name is refused before the long part
    evaluation = evaluate_with_bar(
        model,
        recipe.dataset,
        name=name,
        version=version,
        weights_sha256=sha256,
        eps_max=recipe.radius.eps_max,
        limit=limit,
        data_root=data_root,
    )
    log(summary(evaluation))
    write_atomic(path, content)
    store_evaluation(zoo, evaluation)
    info = registry.add_record(zoo.registry, {**record, "metrics": evaluation.metrics()})
    cards.render_all(zoo)
    return Exported(info, True, evaluation)


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--name", required=True, help="Name in the zoo, e.g. cifar10_kappa025.")
@click.option("--data-root", help="Folder with <name>/test_images.npy (default: $ACERT_ZOO_DATA).")
@click.option("--limit", type=click.IntRange(min=1), help="Evaluate only the first LIMIT test images (trials).")
@click.option("--unfinished", is_flag=True, help="Export a run that has not reached its last epoch.")
@click.option("--root", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Checkout to write into.")
def main(run: Path, name: str, data_root: str | None, limit: int | None, unfinished: bool, root: Path | None) -> None:
    """Add the trained network in the folder RUN to the zoo."""
    zoo = ZooFolder(root) if root else ZooFolder()
    try:
        done = export(
            run, name, zoo=zoo, data_root=data_root, limit=limit, unfinished=unfinished, log=lambda t: click.echo(t)
        )
    except AcertZooError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
    verb = "added" if done.changed else "is in the zoo already:"
    click.echo(f"{verb} {done.info.versioned_name}  {done.info.file}  {done.info.size:,} bytes  {done.info.sha256}")


if __name__ == "__main__":
    main()
