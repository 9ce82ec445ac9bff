"""All registered models as one table. Needs no torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from acert_zoo.zoo.model_info import ModelInfo
from acert_zoo.zoo.registry import select_models


def leaderboard(
    pattern: str | None = None,
    *,
    dataset: str | None = None,
    method: str | None = None,
    where: str | Sequence[str] = (),
    sort: str | None = None,
    as_frame: bool | None = None,
) -> Any:
    """The newest version of every model with its test-set figures, one row a model.

    Args:
        pattern, dataset, method, where, sort: as `list_models` has them.
        as_frame: a pandas DataFrame; by default where pandas is installed.

    Returns:
        a DataFrame, or a list of dicts, with the columns of `leaderboard_row`. Percentages are those of the registry,
        rounded down; None (NaN) where nothing was measured.
    """
    infos = select_models(pattern, dataset=dataset, method=method, where=where, sort=sort)
    rows = [leaderboard_row(info) for info in infos]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    rows = [{key: row.get(key) for key in columns} for row in rows]
    if as_frame is None:
        as_frame = importlib.util.find_spec("pandas") is not None
    if not as_frame:
        return rows
    import pandas

    return pandas.DataFrame(rows)


def leaderboard_row(info: ModelInfo) -> dict[str, Any]:
    """One model as a flat dict: name, version, dataset, method, kappa, accuracy, a column "certified@EPS" for each
    recorded eps, acr_percent with its eps_max, parameters, n (test images), verifier, rounding."""
    accuracy, acr = info.metric("accuracy"), info.metric("acr_percent")
    certified = [m for m in info.metrics if m.metric == "certified_accuracy" and m.split == "test"]
    return {
        "name": info.name,
        "version": info.version,
        "dataset": info.dataset,
        "method": info.method or info.kind,
        "kappa": info.kappa,
        "accuracy": accuracy.value if accuracy else None,
        **{f"certified@{m.eps}": m.value for m in certified},
        "acr_percent": acr.value if acr else None,
        "eps_max": info.eps_max,
        "parameters": info.parameters,
        "n": accuracy.n if accuracy else None,
        "verifier": certified[0].method if certified else None,
        "rounding": certified[0].rounding if certified else None,
    }
