"""The training loop: one function a step, state that resumes at any step, validation that chooses nothing else.

Every random draw is made from a generator seeded by (seed, epoch, step): a resumed run needs no RNG state.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from acert_zoo import architectures, data
from acert_zoo.bounds.ibp import robust_margin
from acert_zoo.errors import AcertZooError, UnknownNameError
from acert_zoo.network import trace
from training import regularizers, schedules
from training.augmentation import augment
from training.clean_pass import update_running_statistics
from training.initialization import ibp_initialization
from training.objectives import OBJECTIVES, Batch
from training.recipe import Optimizer, Recipe


def _generator(*seeds: int) -> torch.Generator:
    state = np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def build_model(recipe: Recipe) -> nn.Module:
    """The recipe's network with BatchNorm, initialised as the recipe says, channels_last."""
    info = data.dataset_info(recipe.dataset)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = architectures.build(
            recipe.arch,
            input_shape=info.input_shape,
            num_classes=info.num_classes,
            mean=info.mean,
            std=info.std,
            batchnorm=True,
            **recipe.arch_kwargs,
        )
    if recipe.initialization == "ibp":
        ibp_initialization(model, _generator(recipe.seed, 1))
    return model.to(memory_format=torch.channels_last)


def build_optimizer(settings: Optimizer, decay: list[nn.Parameter], rest: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser that `settings.name` names; weight decay on the parameters `decay` alone."""
    groups = [{"params": decay, "weight_decay": settings.weight_decay}, {"params": rest}]
    if settings.name == "adam":
        return torch.optim.Adam(groups, lr=settings.lr)
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=0.9, nesterov=True)
    raise UnknownNameError.near("optimizer", settings.name, ["adam", "sgd"])


def pixels(images: Tensor) -> Tensor:
    """uint8 [N, H, W, C] to float32 [N, C, H, W] in [0, 1], channels_last in memory."""
    return images.permute(0, 3, 1, 2).float().div_(255)


class Run:
    """One training run in a folder: recipe.json, log.jsonl, last.pt (atomic), best.pt."""

    def __init__(self, folder: Path, recipe: Recipe, data_root: str | None) -> None:
        self.folder, self.recipe = folder, recipe
        self.model = build_model(recipe)
        images, labels = data.load_split(recipe.dataset, "train", data_root)
        self.images, self.labels = torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels)
        val_images, val_labels = data.load_split(recipe.dataset, "val", data_root)
        self.val = torch.from_numpy(np.ascontiguousarray(val_images)), torch.from_numpy(val_labels)
        self.steps_per_epoch = len(self.labels) // recipe.batch_size
        self.total_steps = self.steps_per_epoch * recipe.epochs
        settings = recipe.optimizer
        decay = [p for p in self.model.parameters() if p.dim() > 1]
        rest = [p for p in self.model.parameters() if p.dim() <= 1]
        self.optimizer = build_optimizer(settings, decay, rest)
        self.scheduler = schedules.learning_rate_schedule(self.optimizer, settings, self.total_steps)
        self.radii = torch.full((len(self.labels),), torch.nan)
        self.step = 0
        self.sums: dict[str, float] = {}
        self.seconds = 0.0
        self.network = trace(self.model)
        self.batchnorms = [m for m in self.model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
        self.decayed = decay

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "radii": self.radii,
            "step": self.step,
            "sums": self.sums,
            "seconds": self.seconds,
            "recipe": json.dumps(self.recipe.to_dict()),
        }

    def save(self, name: str = "last.pt") -> None:
        part = self.folder / f".{name}.part"
        torch.save(self.state(), part)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, self.folder / name)

    def load(self) -> None:
        state = torch.load(self.folder / "last.pt", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.radii, self.step = state["radii"], state["step"]
        self.sums, self.seconds = state["sums"], state["seconds"]

    def train_step(self) -> None:
        recipe = self.recipe
        epoch, position = divmod(self.step, self.steps_per_epoch)
        order = torch.randperm(len(self.labels), generator=_generator(recipe.seed, 2, epoch))
        index = order[position * recipe.batch_size : (position + 1) * recipe.batch_size]
        images = pixels(augment(self.images[index], recipe.augmentation, _generator(recipe.seed, 3, self.step)))
        settings = recipe.radius
        fraction = schedules.radius_fraction(
            self.step, self.steps_per_epoch, settings.first_epochs, settings.ramp_epochs
        )
        batch = Batch(
            self.network,
            images,
            self.labels[index],
            fraction * settings.eps_max_value,
            fraction < 1,
            self.radii[index],
            recipe,
        )
        loss = OBJECTIVES[recipe.objective](batch)
        total = loss.total
        if recipe.optimizer.l1:
            total = total + recipe.optimizer.l1 * regularizers.l1(self.decayed)
        if not math.isfinite(total.item()):
            raise AcertZooError(f"the loss is {total.item()} at step {self.step}; the last good state is kept")
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        if recipe.optimizer.grad_clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.optimizer.grad_clip)
        self.optimizer.step()
        self.scheduler.step()
        update_running_statistics(self.network, self.batchnorms, loss.clean)
        self.radii[index] = loss.radius
        correct = (loss.clean.logits.argmax(1) == self.labels[index]).float().mean().item()
        for key, value in (
            ("loss", total.item()),
            ("robust_loss", loss.robust.item()),
            ("train_accuracy", correct),
            ("mean_radius", loss.radius.mean().item()),
            ("evaluations", loss.evaluations / len(index)),
        ):
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.step += 1

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Accuracy and, at eps_max fractions, IBP-certified accuracy on the validation split (float32 IBP)."""
        self.model.eval()
        network = trace(self.model).fold_batchnorm().detach()
        info = data.dataset_info(self.recipe.dataset)
        eps_max = self.recipe.radius.eps_max_value
        grid = [eps_max * i / 16 for i in range(1, 17)]
        reported = [data.parse_float(e) for e in info.reported_eps]
        radii = grid + reported
        ascending = np.argsort(radii)
        correct, certified, total = 0, np.zeros(len(radii)), 0
        for start in range(0, len(self.val[1]), 500):
            images, labels = pixels(self.val[0][start : start + 500]), self.val[1][start : start + 500]
            right = network(images).argmax(1) == labels
            correct += int(right.sum())
            total += len(labels)
            images, labels = images[right], labels[right]
            for k in ascending:  # an image that is not proved at one radius is not proved at a larger one
                if len(labels):
                    proved = robust_margin(network, images, labels, radii[k]) > 0
                    images, labels = images[proved], labels[proved]
                certified[k] += len(labels)
        self.model.train()
        certified = 100 * certified / total
        grid_part = certified[: len(grid)]
        # trapezoid rule for the mean of min(r, eps_max) / eps_max
        acr = (100 * correct / total / 2 + grid_part[:-1].sum() + grid_part[-1] / 2) / len(grid)
        return {
            "accuracy": 100 * correct / total,
            "acr_percent": acr,
            **{f"certified_{e}": c for e, c in zip(info.reported_eps, certified[len(grid) :], strict=True)},
        }

    def train(
        self, max_minutes: float | None = None, report: Callable[[dict[str, Any]], None] = lambda row: None
    ) -> bool:
        """Trains to the end (True) or until `max_minutes` are over (False: resumable)."""
        self.model.train()
        began = saved = last = time.monotonic()
        while self.step < self.total_steps:
            self.train_step()
            now = time.monotonic()
            self.seconds += now - last
            last = now
            if self.step % self.steps_per_epoch == 0:
                row: dict[str, Any] = {
                    "epoch": self.step // self.steps_per_epoch,
                    "lr": self.scheduler.get_last_lr()[0],
                }
                row |= {k: v / self.steps_per_epoch for k, v in self.sums.items()} | self.validate()
                row["seconds"] = self.seconds
                self.sums = {}
                with open(self.folder / "log.jsonl", "a") as file:
                    file.write(json.dumps(row) + "\n")
                report(row)
                self.save()
                saved = last = time.monotonic()
            elif now - saved > 120:
                self.save()
                saved = last = time.monotonic()
            if max_minutes is not None and (now - began) / 60 >= max_minutes and self.step < self.total_steps:
                self.save()
                return False
        return True
