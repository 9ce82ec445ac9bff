"""Trains one model: python training/train.py --recipe cifar10 --kappa 0.25 [--set key=value ...] [--resume RUN]."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
import torch

from training.loop import Run
from training.recipe import Recipe, load_recipe


@click.command()
@click.option("--recipe", "recipe_name", default="cifar10", show_default=True, help="Bundled recipe or FILE.toml.")
@click.option("--kappa", type=float, help="0: purely robust ... 1: standard training.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Overrides a recipe value.")
@click.option("--run", "folder", type=click.Path(path_type=Path), help="Run folder.")
@click.option("--resume", type=click.Path(exists=True, path_type=Path), help="Continue the run in this folder.")
@click.option("--data-root", help="Folder with <name>/{train,test}_{images,labels}.npy.")
@click.option("--threads", type=int, help="CPU threads.")
@click.option("--max-minutes", type=float)
def main(recipe_name, kappa, overrides, folder, resume, data_root, threads, max_minutes):
    if threads:
        torch.set_num_threads(threads)
    if resume:
        folder = resume
        recipe = Recipe.from_dict(json.loads((folder / "recipe.json").read_text()))
    else:
        if kappa is not None:
            overrides = (*overrides, f"kappa={float(kappa)}")
        recipe = load_recipe(recipe_name, overrides)
        folder = folder or Path("runs") / f"{recipe.dataset}_{recipe.objective}_{time.strftime('%Y%m%d-%H%M%S')}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.json").write_text(json.dumps(recipe.to_dict(), indent=1) + "\n")
    run = Run(folder, recipe, data_root)
    if resume and (folder / "last.pt").exists():
        run.load()
    done = run.train(max_minutes, lambda row: click.echo(json.dumps(row)))
    click.echo(f"{'finished' if done else 'stopped, resumable'}: {folder}")


if __name__ == "__main__":
    main()
