"""From a finished run to the zoo, in one command: python training/export.py RUN --name cifar10_kappa025.

Folds BatchNorm into the layers before it (in float64, rounded once to float32), checks the folded network against the
trained one on real validation images, evaluates it on the test set, and adds weights, evaluation, registry record and
card to the zoo, all of them or none (zoo_entry.py). The same weights again change nothing; other weights get the next
version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from torch import nn

from acert_zoo.data import datasets
from acert_zoo.data.registration import register_own
from acert_zoo.errors import AcertZooError, InvalidInputError
from acert_zoo.network import architectures
from acert_zoo.zoo import registry, weights
from acert_zoo.zoo.expected_logits import compute_expected_logits
from training.evaluate import evaluate_with_bar, summary
from training.recipes.recipe import Recipe
from training.report import cards
from training.report.zoo_entry import add_entry
from training.results.evaluation import Evaluation
from training.results.zoo_folder import ZooFolder, write_atomic
from training.run.deployment import (
    arch_arguments,
    check_folding,
    fold,
    read_run,
    round_as_trained,
    tensors_of,
    trained_model,
)

LICENSE = "Apache-2.0"


def recipe_digest(recipe: Recipe) -> str:
    return hashlib.sha256(json.dumps(recipe.to_dict(), sort_keys=True).encode()).hexdigest()


def epochs_done(recipe: Recipe, state: Mapping[str, Any]) -> int:
    """Whole epochs that the saved state has behind it (a log may run ahead of it after a kill)."""
    steps_per_epoch = len(state["scales"]) // recipe.batch_size  # one scale for each training image
    return int(state["step"]) // max(steps_per_epoch, 1)


def provenance(run: Path, recipe: Recipe, state: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of how the run was made: wall and processor seconds, epochs, threads, versions, git commit."""
    known: dict[str, Any] = {}
    if (run / "environment.json").is_file():
        known = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    spent = {key: round(float(state[key]), 1) for key in ("seconds", "processor_seconds") if state.get(key)}
    return {
        **spent,
        "epochs": min(recipe.epochs, epochs_done(recipe, state)),
        "steps_per_epoch": len(state["scales"]) // recipe.batch_size,
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


def folded(recipe: Recipe, state: dict[str, Any], data_root: str | None, log: Any) -> nn.Module:
    """The network as it is deployed, compared with the trained one on validation images.

    Raises:
        WeightsError: it cannot be folded, or gives other logits.
    """
    trained = trained_model(recipe, state)
    model = fold(trained, architectures.build(recipe.arch, **arch_arguments(recipe)))
    validation, _ = datasets.load_split(recipe.dataset, "val", data_root)
    worst = check_folding(trained, model, datasets.to_pixels(np.array(validation[:1000])))
    log(f"folded; logits differ by {worst:.1g} relative on validation images")
    return round_as_trained(recipe, model)


def file_metadata(name: str, recipe: Recipe, training: dict[str, Any]) -> dict[str, str]:
    """What the weights file says of itself."""
    return {
        "name": name,
        "kappa": repr(recipe.kappa),
        "arch": recipe.arch,
        "dataset": recipe.dataset,
        "commit": str(training.get("commit", "unknown")),
        "recipe": recipe_digest(recipe),
    }


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
    model = folded(recipe, state, data_root, log)
    training = provenance(run, recipe, state)
    content = weights.serialize(tensors_of(model), file_metadata(name, recipe, training))
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
        "expected_logits": compute_expected_logits(model, arch_arguments(recipe)["input_shape"]),
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
    return Exported(add_entry(zoo, record, evaluation, content), True, evaluation)


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--name", required=True, help="Name in the zoo, e.g. cifar10_kappa025.")
@click.option("--data-root", help="Folder with <name>/test_images.npy (default: $ACERT_ZOO_DATA).")
@click.option("--dataset-file", type=click.Path(), help="Registration of a data set of your own, if it has moved.")
@click.option("--limit", type=click.IntRange(min=1), help="Evaluate only the first LIMIT test images (trials).")
@click.option("--unfinished", is_flag=True, help="Export a run that has not reached its last epoch.")
@click.option("--root", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Checkout to write into.")
def main(
    run: Path,
    name: str,
    data_root: str | None,
    dataset_file: str | None,
    limit: int | None,
    unfinished: bool,
    root: Path | None,
) -> None:
    """Add the trained network in the folder RUN to the zoo."""
    zoo = ZooFolder(root) if root else ZooFolder()
    try:
        register_own(data_root, dataset_file, run)
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
