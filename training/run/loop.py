"""The training loop: `Trainer.train_step` is one step of the method, `Trainer.train` repeats it until done or stopped.

Nothing random is carried from step to step (see batches.py), so the state that is saved - weights, optimiser, scales of
the radius search, step - is all that a resumed run needs to end with the same weights. The host does not wait for the
device within a step: metrics are summed and the loss is checked as tensors, which are looked at every CHECK_EVERY steps
and before each save.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from acert_zoo.data.registration import dataset_info
from acert_zoo.network import architectures
from acert_zoo.network.tracing import trace
from training.compute import distributed, kernels
from training.method import schedules
from training.method.clean_pass import clean_pass, update_running_statistics
from training.method.initialization import ibp_initialization
from training.method.loss import Batch, Loss
from training.recipes.recipe import Recipe
from training.run.batches import Batches, generator
from training.run.gradients import Gradients
from training.run.optimization import WeightAverage, build_optimizer
from training.run.run_folder import RunError, RunFolder
from training.run.signals import StopSignals
from training.run.validation import Validation
from training.run.warm_start import start_from

METRICS = ("loss", "natural_loss", "robust_loss", "train_accuracy", "mean_radius", "evaluations")
CHECK_EVERY = 20  # steps between looks at device tensors and votes among ranks; 1 on a single CPU process


def build_model(recipe: Recipe) -> nn.Module:
    """The recipe's network with BatchNorm, initialised as the recipe says, channels_last, on the CPU."""
    info = dataset_info(recipe.dataset)
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
        ibp_initialization(model, generator(recipe.seed, 1))
    return model.to(memory_format=torch.channels_last)


class Trainer:
    """One training run. Raises DatasetNotFoundError before anything is written where the data set is missing."""

    def __init__(self, recipe: Recipe, data_root: str | None = None, device: torch.device | str = "cpu") -> None:
        self.recipe, self.device = recipe, torch.device(device)
        if recipe.compile:
            kernels.require_compiler()
        self.batches = Batches(recipe, data_root, self.device)
        self.validation = Validation(recipe, data_root, self.device)
        self.steps_per_epoch = self.batches.steps_per_epoch
        self.total_steps = self.steps_per_epoch * recipe.epochs
        self.model = build_model(recipe)
        if recipe.init_from:
            start_from(recipe.init_from, self.model, self.batches.images)
        self.model.to(self.device)
        self.network = trace(self.model)
        self.average = WeightAverage(self.model, recipe.optimizer.ema) if recipe.optimizer.ema else None
        self.optimizer = build_optimizer(recipe.optimizer, self.model)
        self.scheduler = schedules.learning_rate_schedule(self.optimizer, recipe.optimizer, self.total_steps)
        self.gradients = Gradients(self.model, recipe, self.device)
        self.step, self.seconds, self.learning_rate = 0, 0.0, recipe.optimizer.lr
        self.processor_seconds = 0.0  # of this process and its threads: less than wall time where others had the cores
        self.scales = torch.full((len(self.batches),), torch.nan, device=self.device)  # of the radius search
        self._new_scales = torch.full_like(self.scales, torch.nan)  # this rank's since the last merge
        self._sums = torch.zeros(len(METRICS), dtype=torch.float64, device=self.device)
        self._failed_at = torch.full((), -1, dtype=torch.int64, device=self.device)  # first step without a finite loss

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return self.step // self.steps_per_epoch

    @property
    def final_model(self) -> nn.Module:
        """The model to validate and export: the average of the weights where the recipe asks for one."""
        return self.average.model if self.average else self.model

    def train_step(self) -> Loss:
        recipe, settings = self.recipe, self.recipe.radius
        index, images, labels = self.batches.get(self.step)
        fraction = schedules.radius_fraction(
            self.step, self.steps_per_epoch, settings.first_epochs, settings.ramp_epochs
        )
        batch = Batch(
            network=self.network,
            images=images,
            labels=labels,
            eps_t=fraction * settings.eps_max_value,
            before_ramp=self.step < round(settings.first_epochs * self.steps_per_epoch),
            ramping=fraction < 1,
            scale=self.scales[index],
            recipe=recipe,
            noise=lambda: self._noise(images),
        )
        loss = self.gradients(batch)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), recipe.optimizer.grad_clip or float("inf"))
        self.optimizer.step()
        self.learning_rate = float(self.scheduler.get_last_lr()[0])
        if self.step + 1 < self.total_steps:
            self.scheduler.step()
        with torch.no_grad():
            update_running_statistics(self.network, self.model, loss.clean)
            if self.average:
                self.average.update(self.model, self.step + 1)
            if loss.scale is not None:
                self._new_scales[index] = loss.scale
            self._record(loss, labels, norm)
        self.step += 1
        return loss

    def _noise(self, images: Tensor) -> Tensor:
        """Uniform numbers shaped like `images`: this rank's rows of the global batch's."""
        g = generator(self.recipe.seed, 4, self.step, device=self.device)
        numbers = torch.rand((self.recipe.batch_size, *images.shape[1:]), generator=g, device=self.device)
        start = distributed.rank() * len(images)
        return numbers[start : start + len(images)]

    def _record(self, loss: Loss, labels: Tensor, norm: Tensor) -> None:
        correct = (loss.clean.logits.argmax(1) == labels).double().mean()
        values = (loss.total, loss.natural, loss.robust, correct, loss.radius.mean())
        self._sums[:-1] += torch.stack([v.detach().double() for v in values])
        self._sums[-1] += loss.evaluations / len(labels)
        bad = ~(torch.isfinite(loss.total.detach()) & torch.isfinite(norm))
        self._failed_at = torch.where(bad & (self._failed_at < 0), self.step, self._failed_at)

    def check_finite(self) -> None:
        """RunError where a loss or gradient since the last check was not finite (the weights are then worthless)."""
        failed = int(self._failed_at)
        if failed >= 0:
            raise RunError(
                f"the loss or its gradient is not finite at step {failed}, epoch {1 + failed // self.steps_per_epoch}; "
                "the last good state is kept. A smaller learning rate or a longer ramp may help"
            )

    def metrics(self) -> dict[str, float]:
        """Means since the epoch began, over all ranks."""
        steps = max(self.step % self.steps_per_epoch or self.steps_per_epoch, 1)
        means = distributed.mean_over_ranks(self._sums) / steps
        return dict(zip(METRICS, means.tolist(), strict=True))

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs, the same on all ranks; merges what the ranks learned since the last call."""
        self._merge_scales()
        sums = distributed.mean_over_ranks(self._sums)
        self._sums = sums.clone()
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scales": self.scales,
            "step": self.step,
            "sums": dict(zip(METRICS, sums.tolist(), strict=True)),
            "seconds": self.seconds,
            "processor_seconds": self.processor_seconds,
            "recipe": json.dumps(self.recipe.to_dict()),
        }
        return state | ({"ema": self.average.model.state_dict()} if self.average else {})

    def load(self, state: dict[str, Any]) -> None:
        """Continues from a saved state, with any number of ranks."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.average:
            self.average.model.load_state_dict(state["ema"])
        scales = state["scales"]
        if scales.shape != self.scales.shape:
            raise RunError(f"the run has {len(scales)} training images, the data set here {len(self.scales)}")
        self.scales = scales.to(self.device)
        self.step, self.seconds = state["step"], state["seconds"]
        self.processor_seconds = state.get("processor_seconds", 0.0)  # runs begun before it was kept
        sums = [state["sums"][key] for key in METRICS]
        self._sums = torch.tensor(sums, dtype=torch.float64, device=self.device)

    def _merge_scales(self) -> None:
        self.scales = distributed.merge_newest(self.scales, self._new_scales)
        self._new_scales.fill_(torch.nan)

    def _end_epoch(self) -> dict[str, Any]:
        """Validates; the epoch's line of the log."""
        self.check_finite()
        fraction = schedules.radius_fraction(
            self.step - 1, self.steps_per_epoch, self.recipe.radius.first_epochs, self.recipe.radius.ramp_epochs
        )
        last = self.step == self.total_steps
        if last and self.recipe.precise_bn:
            self._take_statistics_anew()
        row = {
            "epoch": self.epoch,
            "lr": self.learning_rate,
            "eps_t": fraction * self.recipe.radius.eps_max_value,
            **self.metrics(),
        }
        if last or self.epoch % self.recipe.validate_every == 0:
            row |= self.validation.measure(self.final_model)
        self._sums.zero_()
        self._merge_scales()
        return row

    @torch.no_grad()
    def _take_statistics_anew(self) -> None:
        """BatchNorm's running statistics as the mean over batches of the run's last epoch, in float32 (precise BN)."""
        batches = min(self.recipe.precise_bn, self.steps_per_epoch)
        model = self.final_model
        network = trace(model)
        for k in range(batches):
            _, images, _ = self.batches.get(self.total_steps - batches + k)
            update_running_statistics(network, model, clean_pass(network, images), rate=1 / (1 + k))

    def train(
        self,
        folder: RunFolder,
        *,
        max_minutes: float | None = None,
        save_minutes: float = 2.0,
        on_epoch: Callable[[dict[str, Any]], None] = lambda row: None,
        on_step: Callable[[Trainer], None] = lambda trainer: None,
    ) -> str:
        """Trains on; "finished", or "time" or "interrupted" with a state from which the run can be resumed.

        Raises:
            RunError: a loss that is not finite, or a state that cannot be written; the last good state is kept.
        """
        began = saved = last = time.monotonic()
        busy_before = self.processor_seconds - time.process_time()
        writer = distributed.rank() == 0
        every = 1 if self.device.type == "cpu" and distributed.world_size() == 1 else CHECK_EVERY
        with StopSignals() as signals:
            while self.step < self.total_steps:
                self.train_step()
                at_end = self.step % self.steps_per_epoch == 0
                if not at_end and self.step % every:
                    continue
                self.check_finite()
                now = time.monotonic()
                self.seconds, last = self.seconds + now - last, now
                interrupted, over, due = distributed.any_rank(
                    signals.received,
                    max_minutes is not None and now - began >= 60 * max_minutes,
                    now - saved >= 60 * save_minutes,
                    device=self.device,
                )
                if at_end:
                    row = self._end_epoch()
                    now = time.monotonic()
                    self.seconds, last = self.seconds + now - last, now
                    row["seconds"] = round(self.seconds, 3)
                    if writer:
                        folder.log(row)
                        on_epoch(row)
                if at_end or interrupted or over or due:
                    self.processor_seconds = busy_before + time.process_time()
                    state = self.state()
                    if writer:
                        folder.save(state)
                    saved = time.monotonic()
                on_step(self)
                if (interrupted or over) and self.step < self.total_steps:
                    return "interrupted" if interrupted else "time"
        return "finished"
