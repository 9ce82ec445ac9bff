"""The same recipe with another seed: its figures on the test set, kept beside those of the zoo's model.

    python training/evaluate.py --run RUN --as-seed-of NAME

How far two seeds lie apart is what a difference between two models has to be compared with. Only the figures are kept,
not the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from acert_zoo.errors import InvalidInputError
from acert_zoo.zoo import registry
from training.recipes.recipe import Recipe
from training.results.evaluation import Evaluation
from training.results.zoo_folder import ZooFolder, document_head, dump_json, read_document, write_atomic

# What may differ: the seed, and what does not change what is learned.
FREE = ("seed", "validate_every", "validation_images", "precision", "compile", "cuda_graph")


def read_seeds(path: Path, weights_sha256: str | None) -> list[dict[str, Any]]:
    """Figures of other seeds, smallest seed first; none where there is no file, or it is beside other weights."""
    document = read_document(path, weights_sha256)
    return [] if document is None else list(document["seeds"])


def store_seed(zoo: ZooFolder, name: str, recipe: dict[str, Any], evaluation: Evaluation) -> None:
    """Puts the figures of a run with `recipe` beside those of the newest version of `name`.

    Raises:
        InvalidInputError: the recipes differ in more than the seed and what does not change what is learned, the seed
            is the model's own, or fewer images were evaluated than of the model.
    """
    info = max(
        (m for m in registry.read_registry(zoo.registry) if m.name == name), key=lambda m: m.version, default=None
    )
    if info is None:
        raise InvalidInputError(f"the zoo has no model {name!r}")
    own = Recipe.from_dict(dict(info.recipe)).to_dict()  # with what recipes have been given since, at its default
    changed = sorted(k for k in (recipe.keys() | own.keys()) - {*FREE} if recipe.get(k) != own.get(k))
    if changed:
        raise InvalidInputError(f"the run's recipe differs from that of {info.versioned_name} in {', '.join(changed)}")
    if recipe["seed"] == own["seed"]:
        raise InvalidInputError(f"the run has the seed of {info.versioned_name}, {recipe['seed']}; expected another")
    accuracy = info.metric("accuracy")
    if accuracy is None or evaluation.n != accuracy.n:
        raise InvalidInputError(
            f"{info.versioned_name} has figures of other images than the {evaluation.n} of this run"
        )
    path = zoo.seeds(info.name, info.version)
    others = [o for o in read_seeds(path, info.sha256) if o["seed"] != recipe["seed"]]
    entry = {
        "seed": recipe["seed"],
        "weights_sha256": evaluation.weights_sha256,
        "precision": recipe["precision"],
        "metrics": evaluation.metrics(),
    }
    head = document_head(info.name, info.version, str(info.sha256), evaluation.dataset)
    write_atomic(path, dump_json({**head, "seeds": sorted([*others, entry], key=lambda o: o["seed"])}))
