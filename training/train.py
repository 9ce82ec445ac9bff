"""Trains one model: python training/train.py --recipe cifar10 --kappa 0.25 [--set key=value ...] [--resume RUN].

Several processes: torchrun --nproc-per-node N training/train.py ... (docs/training.md). The way of one training step
from here: Trainer.train and Trainer.train_step (loop.py), the objective (objectives.py), the loss (loss.py).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from acert_zoo.cli.threads import default_threads, wait_passively

wait_passively()  # before torch is imported

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from acert_zoo.data import datasets
from acert_zoo.data.registration import register_own
from acert_zoo.errors import AcertZooError, InvalidInputError, UnknownNameError
from training.compute import distributed
from training.run.loop import Trainer
from training.compute.memory import keep_freed_memory
from training.method.objectives import find_objective
from training.recipes.recipe import Recipe, known_keys, load_recipe
from training.run.run_folder import RunError, RunFolder

LINE_SECONDS = 60.0  # from one line to the next where there is no terminal
INTERRUPTED = 130  # exit code after Ctrl-C or SIGTERM, with a state that resumes


@click.command(context_settings={"max_content_width": 110})
@click.option("--recipe", "recipe_name", help="A bundled recipe, or FILE.toml.  [default: cifar10]")
@click.option("--kappa", type=float, help="0: purely robust ... 1: standard training.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Overrides a recipe value, e.g. epochs=4.")
@click.option("--run", "path", type=click.Path(path_type=Path), help="Folder of the new run.  [default: runs/...]")
@click.option("--resume", type=click.Path(exists=True, path_type=Path), help="Continues the run in this folder.")
@click.option(
    "--data-root", help="Folder with <data set>/{train,test}_{images,labels}.npy.  [default: $ACERT_ZOO_DATA]"
)
@click.option("--dataset-file", type=click.Path(), help="Registration of a data set of your own (docs/datasets.md).")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: $OMP_NUM_THREADS, or one a core]")
@click.option("--max-minutes", type=click.FloatRange(0), help="Stops after this time with a state that resumes.")
@click.option("--save-minutes", type=click.FloatRange(0), default=2.0, show_default=True, help="Saves this often.")
@click.option("--show", is_flag=True, help="Prints the resolved recipe and trains nothing.")
def main(
    recipe_name: str | None,
    kappa: float | None,
    overrides: tuple[str, ...],
    path: Path | None,
    resume: Path | None,
    data_root: str | None,
    dataset_file: str | None,
    device: str,
    threads: int | None,
    max_minutes: float | None,
    save_minutes: float,
    show: bool,
) -> None:
    """Trains one model with ACERT or one of its rivals, into a run folder that resumes and exports."""
    torch.set_num_threads(threads or default_threads())
    keep_freed_memory()
    try:
        register_own(data_root, dataset_file, resume)
        recipe = resolve(recipe_name, kappa, overrides, path, resume)
        if show:
            click.echo("\n".join(f"{key} = {value_of(recipe, key)!r}" for key in known_keys()))
            return
        outcome = run(recipe, path, resume, data_root, device, max_minutes, save_minutes)
    except (RunError, FileNotFoundError) as error:
        raise click.ClickException(str(error)) from error
    except (InvalidInputError, UnknownNameError) as error:
        raise click.UsageError(str(error)) from error
    except AcertZooError as error:
        raise click.ClickException(str(error)) from error
    finally:
        distributed.shutdown()
    if outcome == "interrupted":
        sys.exit(INTERRUPTED)


def resolve(
    recipe_name: str | None, kappa: float | None, overrides: tuple[str, ...], path: Path | None, resume: Path | None
) -> Recipe:
    """The recipe of the command line, or of the run to resume (whose recipe stays as it is)."""
    if resume is None:
        changes = overrides if kappa is None else (*overrides, f"kappa={kappa!r}")
        recipe = load_recipe(recipe_name or "cifar10", changes)
        find_objective(recipe.objective)  # a wrong name ends here, before a data set is fetched
        return recipe
    if recipe_name is not None or kappa is not None or overrides or path is not None:
        raise click.UsageError(
            "--resume takes the recipe and the folder of the run: drop --recipe, --kappa, --set and --run"
        )
    return RunFolder(resume).recipe()


def value_of(recipe: Recipe, key: str) -> Any:
    value: Any = recipe
    for name in key.split("."):
        value = getattr(value, name)
    return value


def choose_device(name: str) -> torch.device:
    """The torch device; on CUDA this rank's own, with TF32 off (bounds are float32)."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise click.UsageError(f"unknown device {name!r}; known: cpu, cuda, cuda:N")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise click.UsageError("--device cuda: torch finds no CUDA device here")
        if device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
    return device


def run(
    recipe: Recipe,
    path: Path | None,
    resume: Path | None,
    data_root: str | None,
    device_name: str,
    max_minutes: float | None,
    save_minutes: float,
    again: str = "continue with --resume {}",
) -> str:
    """Begins or resumes a run and trains it; how it ended (see Trainer.train). `again`: what to do where it stopped."""
    device = choose_device(device_name)
    distributed.initialize(device.type)
    with distributed.first_process_of_machine():  # it alone downloads and converts a data set that is not there yet
        datasets.load_split(recipe.dataset, "val", data_root)
    trainer = Trainer(recipe, data_root, device)
    if resume:
        folder = RunFolder(resume)
        if state := folder.load():
            trainer.load(state)
        if distributed.rank() == 0:
            folder.trim_log(trainer.epoch)
    else:
        name = f"{recipe.dataset}_{recipe.objective.replace(':', '.')}_{time.strftime('%Y%m%d-%H%M%S')}"
        folder = RunFolder.create(path or Path("runs") / name, recipe)
    folder.write_environment(device)
    if distributed.rank() > 0:
        return trainer.train(folder, max_minutes=max_minutes, save_minutes=save_minutes)
    with Display(trainer) as display:
        outcome = trainer.train(
            folder,
            max_minutes=max_minutes,
            save_minutes=save_minutes,
            on_epoch=display.epoch,
            on_step=display.step,
        )
    ended = "finished" if outcome == "finished" else f"stopped at step {trainer.step}; {again.format(folder.path)}"
    click.echo(f"{ended}: {folder.path}" if outcome == "finished" else ended)
    return outcome


class Display:
    """A progress bar with the running metrics on a terminal, else a line a minute; one line an epoch everywhere."""

    def __init__(self, trainer: Trainer) -> None:
        self.console = Console()
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self.steps, self.steps_per_epoch = trainer.total_steps - trainer.step, trainer.steps_per_epoch
        epoch = trainer.epoch + 1
        self.task = self.bar.add_task(
            "", total=trainer.total_steps, completed=trainer.step, epoch=epoch, epochs=trainer.recipe.epochs, metrics=""
        )
        self.shown = 0.0

    def __enter__(self) -> Display:
        self.bar.start()
        if self.bar.disable:
            self.shown = time.monotonic()
            self._line(f"training: {self.steps:,} steps to go, {self.steps_per_epoch:,} an epoch")
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def step(self, trainer: Trainer) -> None:
        pause = LINE_SECONDS if self.bar.disable else 0.5
        if time.monotonic() - self.shown < pause or distributed.world_size() > 1:
            return
        self.shown = time.monotonic()
        m = trainer.metrics() if trainer.step % trainer.steps_per_epoch else {}
        text = (
            f"loss {m['loss']:.3f}  accuracy {100 * m['train_accuracy']:.1f} %  eps* {m['mean_radius']:.5f}"
            if m
            else ""
        )
        epoch = min(trainer.epoch + 1, trainer.recipe.epochs)
        if self.bar.disable:
            self._line(f"step {trainer.step:,} of {trainer.total_steps:,} (epoch {epoch})  {text}".rstrip())
        self.bar.update(self.task, completed=trainer.step, epoch=epoch, metrics=text)

    def _line(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)

    def epoch(self, row: dict[str, Any]) -> None:
        text = f"epoch {row['epoch']}  loss {row['loss']:.4f}  eps* {row['mean_radius']:.5f} of {row['eps_t']:.5f}"
        text += f"  evaluations {row['evaluations']:.2f}"
        if "accuracy" in row:  # not in every epoch where the recipe says so
            certified = "  ".join(
                f"{k.removeprefix('certified_')}: {v:.2f} %" for k, v in row.items() if "certified_" in k
            )
            text += f"  |  validation: accuracy {row['accuracy']:.2f} %  ACR {row['acr_percent']:.2f} % of eps_max"
            text += f"  certified at {certified}"
        self._line(f"{text}  |  {row['seconds']:.0f} s")


if __name__ == "__main__":
    # Gradients of a saturated loss: arithmetic with subnormal numbers is slow on CPUs. Only as a program of its own:
    # worker threads keep the setting under which they began, and a proof in the same process needs subnormal numbers.
    torch.set_flush_denormal(True)
    main()
