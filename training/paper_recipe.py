"""A `_paper` recipe on a GPU lent for minutes: python training/paper_recipe.py pack|run|join (docs/training.md).

It needs this repository, the packed data and a folder that stays: `run` trains for some minutes and saves its state;
the last of such calls writes the weights in parts. Its speed is unmeasured: no GPU could be had when this was written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import torch

from acert_zoo.data import datasets
from acert_zoo.errors import AcertZooError, InvalidInputError
from acert_zoo.zoo import weights
from training.compute import distributed
from training.compute.memory import keep_freed_memory
from training.recipes.recipe import load_recipe
from training.run import packed_data
from training.run.deployment import deployed_model, read_run, tensors_of
from training.run.run_folder import RunFolder
from training.run.weight_parts import read_parts, write_parts
from training.train import run as train

SPEED = ("precision=bfloat16", "compile=true")  # what a step gains by, and weights that fit half the room


@contextmanager
def _refusals() -> Iterator[None]:
    """What a user can cause is a message."""
    try:
        yield
    except (AcertZooError, FileNotFoundError) as error:
        raise click.ClickException(str(error)) from error
    finally:
        distributed.shutdown()


@click.group()
def main() -> None:
    """Trains a paper recipe ten minutes at a time."""


@main.command()
@click.option("--data-root", help="Folder of the data sets.  [default: $ACERT_ZOO_DATA]")
@click.option("--dataset", default="cifar10", show_default=True)
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER")
def pack(data_root: str | None, dataset: str, out: Path) -> None:
    """Packs the training images (those held out for validation included) for `run`."""
    with _refusals():
        for path in packed_data.pack(*datasets.training_images(dataset, data_root), out):
            click.echo(f"{path}: {path.stat().st_size:,} bytes")


@main.command()
@click.option("--packed", required=True, type=click.Path(path_type=Path), metavar="FOLDER", help="What `pack` wrote.")
@click.option("--state", required=True, type=click.Path(path_type=Path), metavar="FOLDER", help="Data and run; stays.")
@click.option("--weights", "target", required=True, type=click.Path(path_type=Path), help="Folder of their parts.")
@click.option("--recipe", default="cifar10_paper", show_default=True, help="A bundled recipe, or FILE.toml.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help=f"After {', '.join(SPEED)}.")
@click.option("--device", default="cuda", show_default=True)
@click.option("--minutes", type=click.FloatRange(0), default=9.0, show_default=True, help="Of training, in this call.")
def run(
    packed: Path, state: Path, target: Path, recipe: str, overrides: tuple[str, ...], device: str, minutes: float
) -> None:
    """Trains on, from where the last call ended; writes the weights once the recipe is done."""
    keep_freed_memory()
    with _refusals():
        resolved = load_recipe(recipe, (*SPEED, *overrides))
        folder = state / "run"
        packed_data.unpack(packed, state / "data" / resolved.dataset)
        begun = (folder / "recipe.json").exists()
        if begun and RunFolder(folder).recipe() != resolved:
            raise InvalidInputError(f"{folder} is a run of another recipe; name another --state")
        resume = folder if begun else None
        saving = min(2.0, minutes)
        outcome = train(resolved, folder, resume, str(state / "data"), device, minutes, saving, "the same call goes on")
        if outcome == "finished":
            for path in write_parts(tensors_of(deployed_model(*read_run(folder))), target):
                click.echo(f"{path}: {path.stat().st_size:,} bytes")


@main.command()
@click.argument("parts", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE")
def join(parts: Path, out: Path) -> None:
    """Joins the PARTS (a folder) into one float32 safetensors FILE."""
    with _refusals():
        digest, size = weights.write_safetensors(out, read_parts(parts))
    click.echo(f"{out}: {size:,} bytes, sha256 {digest}")


if __name__ == "__main__":
    torch.set_flush_denormal(True)  # as training/train.py does, as a program of its own
    main()
