"""Attacks every bundled checkpoint inside its own certificates: python benchmarks/soundness.py [--points 1000000]

For each model: certify images, then attack at 99.9 % of each certified radius by rounds of random corners, random
points, projected gradient descent (each gate's margin included, for cascades) and float-neighbour search about what
these found. Every point lies exactly in its box. An answer other than the certified one, confirmed as
`acert_zoo.attacks.adversarial_check` says, is a violation; there must be none, and the exit status is 1 if there is
one.

Finished rounds are kept in a state file (one JSON line each): the same command goes on where it stopped.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch
from torch import Tensor, nn

import acert_zoo
from acert_zoo.attacks.adversarial_check import AdversarialCheck
from acert_zoo.attacks.exact_box import attack_box, inside
from acert_zoo.attacks.pgd import (
    Objective,
    descend,
    entropy_objective,
    float_neighbours,
    margin_objective,
    random_corners,
    random_points,
)
from acert_zoo.data import datasets
from acert_zoo.errors import AcertZooError

SHARE = 0.999  # of each certified radius
STEPS = 10
NEIGHBOURS = 4  # float-neighbour points for each found one
BATCH = 64


@dataclass(frozen=True)
class Round:
    """One round of attacks on one model."""

    model: str
    weights_sha256: str | None
    rounding: str
    number: int
    images: int
    points: int
    violations: int
    seconds: float


class Attacked:
    """A model, its certified images and their boxes."""

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, rounding: str = "real-sound") -> None:
        certificates = acert_zoo.certify(model, images, labels, rounding=rounding)
        chosen = certificates.radius > 0
        self.model = model
        self.images, self.labels = images[chosen], certificates.label[chosen]
        self.radius = certificates.radius[chosen] * SHARE
        self.adversarial = AdversarialCheck(model, program=rounding == "float32-deployed")
        extra = model.attack_objectives() if isinstance(model, acert_zoo.Cascade) else []
        self.objectives: list[Objective] = [margin_objective(model), entropy_objective(model), *(f for _, f in extra)]

    def points(self, part: Tensor, generator: torch.Generator, objective: Objective) -> Iterator[tuple[Tensor, int]]:
        """(points to judge, number of points that they stand for) of one batch of images in one round.

        Descent evaluates STEPS + 1 points an image and hands on the worst and the last.
        """
        box, labels = attack_box(self.images[part], self.radius[part]), self.labels[part]
        corners = random_corners(box, generator)
        yield corners, len(part)
        yield random_points(box, generator), len(part)
        start = corners if torch.rand((), generator=generator) < 0.5 else self.images[part]
        worst, last = descend(objective, start, labels, box, self.radius[part], STEPS)
        yield worst, len(part) * STEPS
        yield last, len(part)
        for _ in range(NEIGHBOURS):
            yield float_neighbours(worst, box, generator), len(part)
        at_corners = torch.where(worst >= self.images[part], box.upper, box.lower)
        yield at_corners, len(part)

    @torch.no_grad()
    def violations(self, points: Tensor, labels: Tensor) -> int:
        """How many points the judge finds adversarial. A network's points whose float32 margin is far above rounding
        (1e-3 of the largest logit; float32 and float64 differ by about 1e-6) need not come before it."""
        if not self.adversarial.is_cascade:
            logits = self.model(points)
            own = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
            margin = own - logits.scatter(1, labels.unsqueeze(1), -torch.inf).amax(1)
            near = ~(margin > 1e-3 * logits.abs().amax(1))
            points, labels = points[near], labels[near]
        return int((self.adversarial.predict(points, labels) != labels).sum()) if len(points) else 0

    def round(self, seed: int) -> tuple[int, int]:
        """(points, violations) of round `seed`."""
        generator = torch.Generator().manual_seed(seed)
        objective = self.objectives[seed % len(self.objectives)]
        count = violations = 0
        for part in torch.arange(len(self.images)).split(BATCH) if len(self.images) else []:
            for points, number in self.points(part, generator, objective):
                if not bool(inside(points, self.images[part], self.radius[part]).all()):
                    raise AssertionError("an attacked point lies outside its box")
                violations += self.violations(points, self.labels[part])
                count += number
        return count, violations


def bundled_images(dataset: str, n: int, data_root: str | None) -> tuple[Tensor, Tensor]:
    """n test images: of the full data set where its folder is named, else the bundled ones."""
    if data_root is None:
        return acert_zoo.sample_data(dataset, n=None if n >= len(acert_zoo.sample_data(dataset)[1]) else n)
    images, labels = datasets.load_split(dataset, "test", data_root)
    return datasets.to_pixels(images[:n].copy()), torch.from_numpy(labels[:n].copy())


def read_state(path: Path) -> list[Round]:
    """The finished rounds of a state file; a torn last line (of a killed run) is dropped."""
    rounds = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rounds.append(Round(**json.loads(line)))
        except (ValueError, TypeError):
            break
    return rounds


def run(
    names: list[str], points: int, images: int, state: Path, *, data_root: str | None, minutes: float, rounding: str
) -> list[Round]:
    """Attacks the models in turn until each has its share of `points`, or time is over; returns all finished rounds.

    Where nothing of a model is certified, the others take over its share.
    """
    began, rounds = time.monotonic(), read_state(state)
    state.parent.mkdir(parents=True, exist_ok=True)
    state.write_text("".join(json.dumps(asdict(r)) + "\n" for r in rounds), encoding="utf-8")
    able = []
    for name in names:
        model = acert_zoo.load_model(name)
        digest = model.weights_sha256
        mine = [r for r in rounds if (r.model, r.weights_sha256, r.rounding) == (name, digest, rounding)]
        done, number = sum(r.points for r in mine), len(mine)
        if done >= math.ceil(points / len(names)):
            able.append(name)
            continue
        assert model.info is not None
        attacked = Attacked(model, *bundled_images(str(model.info.dataset), images, data_root), rounding)
        able += [name] * bool(len(attacked.images))
        while done < math.ceil(points / len(names)) and len(attacked.images):
            if (time.monotonic() - began) / 60 > minutes:
                return rounds
            started = time.monotonic()
            count, violations = attacked.round(number)
            seconds = round(time.monotonic() - started, 2)
            rounds.append(Round(name, digest, rounding, number, len(attacked.images), count, violations, seconds))
            with state.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(rounds[-1])) + "\n")
            done, number = done + count, number + 1
    if 0 < len(able) < len(names):
        left = minutes - (time.monotonic() - began) / 60
        return run(able, points, images, state, data_root=data_root, minutes=left, rounding=rounding)
    return rounds


@click.command()
@click.option("--points", default=1_000_000, show_default=True, help="Attacked points in all.")
@click.option("--images", default=100, show_default=True, help="Test images for each model.")
@click.option("--minutes", default=60.0, show_default=True, help="Stop (resumable) after so long.")
@click.option("--model", "names", multiple=True, help="Only this model (may be repeated).")
@click.option("--rounding", default="real-sound", show_default=True)
@click.option("--data-root", help="Full data sets (default: the bundled images).")
@click.option("--state", type=click.Path(dir_okay=False, path_type=Path), default=Path("runs/soundness.jsonl"))
def main(
    points: int,
    images: int,
    minutes: float,
    names: tuple[str, ...],
    rounding: str,
    data_root: str | None,
    state: Path,
) -> None:
    """Attack every bundled checkpoint at 99.9 % of its certified radii."""
    chosen = list(names) or acert_zoo.list_models()
    if not chosen:
        raise click.UsageError("the registry has no models")
    try:
        rounds = run(chosen, points, images, state, data_root=data_root, minutes=minutes, rounding=rounding)
    except AcertZooError as error:
        raise click.ClickException(str(error)) from None
    total = violations = 0
    for name in chosen:
        digest = acert_zoo.load_model(name).weights_sha256
        mine = [r for r in rounds if (r.model, r.weights_sha256, r.rounding) == (name, digest, rounding)]
        own, bad = sum(r.points for r in mine), sum(r.violations for r in mine)
        total, violations = total + own, violations + bad
        images_used, seconds = max((r.images for r in mine), default=0), sum(r.seconds for r in mine)
        row = f"{images_used:>5} images {own:>10,} points {bad:>4} violations {seconds:>8.1f} s"
        click.echo(f"{name:<32} {row}")
    if total < points:
        click.echo(f"stopped before {points:,} points; the same command goes on (where anything is certified)")
    click.echo(f"{violations} violations in {total:,} points ({' '.join(['python', *sys.argv])})")
    sys.exit(1 if violations else 0)


if __name__ == "__main__":
    main()
