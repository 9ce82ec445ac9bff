"""What a card says of how a model came about: data, cost, recipe, and the command that makes it again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acert_zoo.data.registration import dataset_info
from acert_zoo.exact_numbers import duration
from acert_zoo.zoo.model_info import ModelInfo


def training_data(info: ModelInfo) -> str:
    if info.kind == "cascade":
        chosen = info.recipe.get("chosen", "on the validation split")
        return f"Members and gates were chosen {chosen}; the test set was read once, for the table above."
    facts = dataset_info(str(info.dataset))
    return (
        f"{facts.about or facts.display_name}. The official training set without {facts.held_out} held out for "
        "validation; this recipe was chosen on those. The test set was read once for these weights, for the table "
        "above."
    )


def cost(info: ModelInfo) -> str:
    training = info.training
    if not training.get("seconds"):
        return "Not recorded."
    threads, processes = training.get("threads"), training.get("processes") or 1
    device = training.get("device", "cpu")
    if device != "cpu":
        on = f" on {processes} x {device}" if processes > 1 else f" on one {device}"
    elif threads:
        on = f" on {threads * processes} thread{'s' if threads * processes != 1 else ''} of a CPU"
    else:
        on = " on a CPU"
    epochs = ""
    if training.get("epochs"):
        steps = f" of {training['steps_per_epoch']:,} steps" if training.get("steps_per_epoch") else ""
        epochs = f", {training['epochs']} epochs{steps}"
    busy = training.get("processor_seconds")
    if busy and device == "cpu":  # below what its threads could have used: other work had the cores meanwhile
        most = training["seconds"] * (threads or 1)
        epochs += f", {min(100, math.floor(100 * busy / most))} % of that time on a core"
    start = info.recipe.get("init_from")
    base = f", beginning with the weights of `{Path(start).name}` (whose own cost comes on top)" if start else ""
    return f"{duration(training['seconds'])}{on}{epochs}{base}."


def smallest_radius(info: ModelInfo) -> str:
    """A sentence where the recipe departs from the paper's ACERT by a smallest radius, else nothing."""
    smallest = info.recipe.get("radius", {}).get("eps_min", "0")
    if info.method != "acert" or smallest == "0":
        return ""
    return (
        f" No image was trained at a radius below {smallest} (`radius.eps_min`; the paper's ACERT has no such floor)."
    )


def recipe_toml(recipe: Mapping[str, Any]) -> str:
    """The resolved recipe as TOML: training/train.py --recipe FILE.toml takes it."""
    plain = {k: v for k, v in recipe.items() if not isinstance(v, Mapping)}
    tables = {k: v for k, v in recipe.items() if isinstance(v, Mapping)}
    lines = [f"{k} = {json.dumps(v)}" for k, v in plain.items()]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{k} = {json.dumps(v)}" for k, v in table.items())]
    return "\n".join(lines) + "\n"


def recipe_use(info: ModelInfo, cascade: Mapping[str, Any] | None) -> str:
    """How the recipe makes the model again."""
    if cascade is None and info.recipe.get("init_from"):
        return (
            "Save it as `recipe.toml`; `python training/train.py --recipe recipe.toml` trains the last step again. "
            "`init_from` names a run's folder or a model of the zoo; docs/training.md has the steps before."
        )
    if cascade is None:
        return "Save it as `recipe.toml`; `python training/train.py --recipe recipe.toml` trains the model again."
    members = "".join(f" --member {m['name']}" for m in cascade["members"])
    gates = "".join(f" --gate {gate}" for gate in cascade["gates"])
    return f"`python training/cascade.py add {info.name}{members}{gates}` puts it together and evaluates it again."
