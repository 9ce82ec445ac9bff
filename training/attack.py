"""Attacks a zoo model on the test set: python training/attack.py --model NAME [--limit N] [--store].

A certified radius is a lower bound of an image's true radius; the distance of an adversarial image is an upper one. PGD
looks for one within each eps of a ladder, from small to large, and bisects between what is certified and what it found.
With --store the bounds go beside the stored evaluation, where the gallery finds them.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn

from acert_zoo.attacks.attack import attack, refuse_refuted
from acert_zoo.data import datasets
from acert_zoo.data.registration import dataset_info
from acert_zoo.errors import AcertZooError, InvalidInputError
from acert_zoo.exact_numbers import decimal_down, parse_eps, round_down
from training.compute.environment import versions
from training.results.evaluation import floor_decimal, read_radii
from training.results.subject import zoo_subject
from training.results.zoo_folder import ZooFolder, document_head, dump_json, write_atomic

LIMIT = 1000
STEPS, RESTARTS, BISECTIONS, SEED = 20, 2, 3, 0


@dataclass(frozen=True, eq=False)
class Attacked:
    """Upper bounds of the true radii of the first n test images.

    Attributes:
        radius: float64 [n], pixel units, the distance of an adversarial image rounded up; 0 where the image itself is
            misclassified, inf where none was found.
        ladder: the eps within which adversarial images were sought.
        environment: seconds, threads, versions.
    """

    name: str
    version: int
    weights_sha256: str
    dataset: str
    radius: np.ndarray
    ladder: tuple[str, ...]
    environment: dict[str, Any] = field(default_factory=dict)

    def accuracy(self, eps: str | Fraction) -> float:
        """In percent, rounded down: images that are classified correctly and that no attack within eps broke."""
        unbroken = int((self.radius > round_down(parse_eps(eps))).sum())
        return floor_decimal(Fraction(100 * unbroken, len(self.radius)), 6)

    def to_dict(self) -> dict[str, Any]:
        return {
            **document_head(self.name, self.version, self.weights_sha256, self.dataset),
            "n": len(self.radius),
            "attack": {"method": "pgd", "steps": STEPS, "restarts": RESTARTS, "bisections": BISECTIONS, "seed": SEED},
            "environment": self.environment,
            "attacked_accuracy": [{"eps": eps, "value": self.accuracy(eps)} for eps in self.ladder],
        }


def attack_ladder(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    certified: Tensor,
    ladder: Sequence[str],
    progress: Callable[[str], None] = lambda text: None,
) -> Tensor:
    """[N] float64, for each image the smallest distance of an adversarial image that PGD found.

    Args:
        model: raw pixels in, logits out, in eval mode; or a cascade.
        images, labels: float32 [N, C, H, W] in [0, 1], int64 [N].
        certified: [N] float64 radii; within them nothing is sought, for there is nothing.
        ladder: eps in rising order.

    Raises:
        RefutedCertificateError: an adversarial image lies within a certified radius.
    """
    bound = torch.full((len(images),), torch.inf, dtype=torch.float64)
    floor = certified.clone()
    for text in ladder:
        eps = round_down(parse_eps(text))
        left = ((floor < eps) & (bound > eps)).nonzero().flatten()
        if not len(left):
            continue
        found = attack(
            model,
            images[left],
            labels[left],
            text,
            steps=STEPS,
            restarts=RESTARTS,
            shrink=BISECTIONS,
            floor=floor[left],
            seed=SEED,
        )
        bound[left] = torch.minimum(bound[left], found.radius)
        floor[left[~found.success]] = eps
        progress(f"  eps {text}: adversarial images of {int(found.success.sum())} of {len(left)} sought")
    refuse_refuted(certified, bound)
    return bound


def attack_model(
    name: str, limit: int, zoo: ZooFolder, data_root: str | None = None, progress: Callable[[str], None] = print
) -> Attacked:
    """Attacks the first `limit` test images whose certified radii are stored.

    Raises:
        InvalidInputError: `name` has no stored evaluation of as many images, or not of these weights.
        RefutedCertificateError: an adversarial image lies within a certified radius.
    """
    began = time.monotonic()
    subject = zoo_subject(name)
    assert subject.version is not None
    stored = read_radii(zoo.radii(subject.name, subject.version))
    if limit > len(stored):
        raise InvalidInputError(f"limit is {limit}; the radii of {len(stored)} images of {name} are stored")
    info = dataset_info(subject.dataset)
    top = parse_eps(info.eps_max) * Fraction(3, 2)  # where the gallery's slider ends
    scale = 255 if "/255" in info.eps_max else 1
    last = f"{float(top * scale):g}/255" if scale == 255 else f"{float(top):g}"
    ladder = sorted({*info.reported_eps, last}, key=parse_eps)
    images, labels = datasets.load_split(subject.dataset, "test", data_root)
    radius = attack_ladder(
        subject.model,
        datasets.to_pixels(np.array(images[:limit])),
        torch.from_numpy(np.array(labels[:limit])).long(),
        torch.from_numpy(stored[:limit].copy()),
        ladder,
        progress,
    )
    return Attacked(
        subject.name,
        subject.version,
        subject.sha256,
        subject.dataset,
        radius.numpy(),
        tuple(ladder),
        {"seconds": round(time.monotonic() - began, 1), "threads": torch.get_num_threads(), "versions": versions()},
    )


def store_attacked(zoo: ZooFolder, attacked: Attacked) -> None:
    buffer = io.BytesIO()
    np.save(buffer, attacked.radius, allow_pickle=False)
    write_atomic(zoo.attacked_radii(attacked.name, attacked.version), buffer.getvalue())
    write_atomic(zoo.attack(attacked.name, attacked.version), dump_json(attacked.to_dict()))


@click.command()
@click.option("--model", "model_name", required=True, help="A model of the zoo.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=LIMIT, show_default=True, help="Only the first LIMIT test images."
)
@click.option("--data-root", help="Folder with <name>/test_images.npy (default: $ACERT_ZOO_DATA).")
@click.option("--store", is_flag=True, help="Put the bounds beside the stored evaluation.")
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), help="Checkout that holds evaluations/.")
def main(model_name: str, limit: int, data_root: str | None, store: bool, root: Path | None) -> None:
    """Attack test images by PGD: the share that stays right is an upper bound of robust accuracy."""
    zoo = ZooFolder(root) if root else ZooFolder()
    try:
        attacked = attack_model(model_name, limit, zoo, data_root, lambda text: click.echo(text, err=True))
    except AcertZooError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
    click.echo(
        f"{attacked.name}: the first {limit:,} {attacked.dataset} test images, {attacked.environment['seconds']} s"
    )
    for eps in attacked.ladder:
        click.echo(f"  attacked accuracy at {eps:<22} {decimal_down(attacked.accuracy(eps), 2):>9} %")
    if store:
        store_attacked(zoo, attacked)


if __name__ == "__main__":
    main()
