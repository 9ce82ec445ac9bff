"""The document behind the trade-off page: every newest model of each data set, and published results beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from acert_zoo.data.registration import dataset_info
from acert_zoo.exact_numbers import parse_eps
from acert_zoo.gallery.decided import Decided
from acert_zoo.gallery.eps_grid import EpsGrid, eps_grid
from acert_zoo.gallery.evaluations import StoredEvaluation
from acert_zoo.gallery.wording import METHOD_TITLES
from acert_zoo.zoo.model_info import ModelInfo

SCHEMA_VERSION = 1
PUBLISHED = Path(__file__).with_name("published.json")


def tradeoff_document(models: Sequence[tuple[ModelInfo, StoredEvaluation]]) -> dict[str, Any]:
    """What `data/tradeoff.json` holds: for each data set its grid of eps, its models, and published results.

    A model's `counts[k]` is the number of its first `n` test images that are certified at `k * step`, exactly.
    """
    named = sorted({str(info.dataset) for info, _ in models})
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    return {
        "schema_version": SCHEMA_VERSION,
        "methods": METHOD_TITLES,
        "datasets": [_dataset(name, models, published) for name in named],
    }


def _dataset(
    name: str, models: Sequence[tuple[ModelInfo, StoredEvaluation]], published: dict[str, Any]
) -> dict[str, Any]:
    info = dataset_info(name)
    grid = eps_grid(info)
    reported = info.reported_eps or (info.eps_max,)
    return {
        "name": name,
        "title": info.display_name,
        "eps_max": info.eps_max,
        "grey_levels": grid.grey_levels,
        "step": float(grid.step * 255 if grid.grey_levels else grid.step),
        "last": grid.last,
        "reported": [{"text": eps, "stop": int(parse_eps(eps) / grid.step)} for eps in reported],
        "models": [_row(model, stored, grid, info.eps_max) for model, stored in models if model.dataset == name],
        "fronts": [_front(f, grid) for f in published["fronts"] if f["dataset"] == name],
        "acr_fronts": [f for f in published["acr"] if f["dataset"] == name and f["eps_max"] == info.eps_max],
    }


def _row(info: ModelInfo, stored: StoredEvaluation, grid: EpsGrid, eps_max: str) -> dict[str, Any]:
    accuracy, acr = info.metric("accuracy"), info.metric("acr_percent", eps_max)
    proved = next((m for m in info.metrics if m.metric == "certified_accuracy"), None)
    return {
        "name": info.name,
        "version": info.version,
        "method": info.method or info.kind,
        "kind": info.kind,
        "kappa": info.kappa,
        "eps_max": info.eps_max,
        "parameters": info.parameters,
        "hours": round(info.training["seconds"] / 3600, 2) if "seconds" in info.training else None,
        "accuracy": accuracy.value if accuracy else None,
        "acr": acr.value if acr else stored.acr_percent(eps_max),
        "images": accuracy.n if accuracy else stored.total,
        "verifier": proved.method if proved else None,
        "rounding": proved.rounding if proved else None,
        "n": len(stored.radii),
        "counts": grid.counts(stored.radii),
        "reported": [
            {"stop": int(parse_eps(m.eps) / grid.step), "value": m.value, "n": m.n}
            for m in info.metrics
            if m.metric == "certified_accuracy" and m.eps is not None and not parse_eps(m.eps) % grid.step
        ],
        "attacked": _attacked(stored, grid),
        "decided": [decided_point(d, grid) for d in stored.decided if not parse_eps(d.eps) % grid.step],
    }


def _attacked(stored: StoredEvaluation, grid: EpsGrid) -> dict[str, Any] | None:
    """Of the first `n` images: `unbroken[k]` withstood the stored attack within k * step, `certified[k]` are certified
    there. The truth lies between the two."""
    if stored.attacked is None:
        return None
    n = len(stored.attacked)
    return {"n": n, "unbroken": grid.unbroken(stored.attacked), "certified": grid.counts(stored.radii[:n])}


def decided_point(decided: Decided, grid: EpsGrid) -> dict[str, Any]:
    """Of the first `n` images, how many are right, proved robust at the stop by any method, and not broken there."""
    return {
        "stop": int(parse_eps(decided.eps) / grid.step),
        "n": decided.n,
        "correct": decided.correct,
        "certified": decided.robust,
        "unbroken": decided.unbroken,
    }


def _front(front: dict[str, Any], grid: EpsGrid) -> dict[str, Any]:
    """A published front with the slider's stop in place of its data set."""
    kept = {key: value for key, value in front.items() if key != "dataset"}
    return {**kept, "stop": int(parse_eps(front["eps"]) / grid.step)}
