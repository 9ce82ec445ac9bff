"""What benchmarks that train share: a run goes on to its end from where it was, so that the benchmark does too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from training.recipes.recipe import Recipe
from training.run.loop import Trainer
from training.run.run_folder import RunFolder


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options of every benchmark that trains: where the data lie, what differs from the recipe, what is written."""
    options = (
        click.option("--recipe", default="cifar10", show_default=True, help="A bundled recipe, or FILE.toml."),
        click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Overrides a value in all runs."),
        click.option("--data-root", help="Folder of the data sets.  [default: $ACERT_ZOO_DATA]"),
        click.option("--threads", default=1, show_default=True),
        click.option("--dry", is_flag=True, help="Only lists the runs."),
        click.option("--json", "path", type=click.Path(path_type=Path), help="Writes the results to this file too."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def finish(folder: Path, recipe: Recipe, data_root: str | None, progress: str) -> dict[str, Any]:
    """The last epoch's row of the run in `folder`, which is made or gone on with; ClickException where interrupted."""
    if (folder / "recipe.json").exists():
        run = RunFolder(folder)
        if run.recipe() != recipe:
            raise click.ClickException(f"{folder} holds a run with other settings: name another folder with --out")
    else:
        run = RunFolder.create(folder, recipe)
    rows = run.rows()
    if rows and rows[-1]["epoch"] == recipe.epochs:
        return rows[-1]
    trainer = Trainer(recipe, data_root)
    if state := run.load():
        trainer.load(state)
    run.trim_log(trainer.epoch)
    run.write_environment(torch.device("cpu"))

    def show(row: dict[str, Any]) -> None:
        looked = f"accuracy {row['accuracy']:.2f} %  ACR {row['acr_percent']:.2f} %  " if "accuracy" in row else ""
        evaluations = f"evaluations {row['evaluations']:.2f}  " if row["evaluations"] else ""
        text = f"{progress}, epoch {row['epoch']}: loss {row['loss']:.4f}  {looked}{evaluations}{row['seconds']:.0f} s"
        click.echo(text)

    if trainer.train(run, on_epoch=show) != "finished":
        raise click.ClickException("interrupted; the same command goes on")
    return run.rows()[-1]
