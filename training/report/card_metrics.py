"""What a card says of the figures: the table of results, and the same as the YAML that the Hub reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from acert_zoo.data.registration import dataset_info
from acert_zoo.exact_numbers import decimal_down, down, parse_eps
from acert_zoo.zoo.model_info import Metric, ModelInfo


def percent(metric: Metric | None) -> str:
    return "-" if metric is None else decimal_down(metric.value, 2)


def certified(info: ModelInfo) -> list[Metric]:
    """Certified accuracies on the test set, smallest eps first."""
    found = [m for m in info.metrics if m.metric == "certified_accuracy" and m.split == "test"]
    return sorted(found, key=lambda m: parse_eps(m.eps or "0"))


def metric_label(metric: Metric) -> str:
    return {
        "accuracy": "natural accuracy, %",
        "acr": "average certified radius (ACR), pixel units",
        "acr_percent": f"ACR, % of {metric.eps} (radii capped there)",
        "certified_accuracy": f"certified accuracy at {metric.eps}, %",
    }[metric.metric]


def results_table(info: ModelInfo, attacked: Mapping[str, Any] | None = None) -> str:
    """Accuracy, certified accuracies, what an attack left of them (of `training/attack.py`), then the ACR."""
    rows = ["| | value | test images | by | rounding |", "|---|---:|---:|---|---|"]
    ordered = sorted(info.metrics, key=lambda m: m.metric.startswith("acr"))
    for m in ordered:
        value = decimal_down(m.value, 6 if m.unit == "pixel" else 2)
        bound = m.method.upper() if m.method else "-"
        rows.append(f"| {metric_label(m)} | {value} | {m.n:,} | {bound} | {m.rounding or '-'} |")
    first_acr = 2 + sum(not m.metric.startswith("acr") for m in ordered)
    rows[first_acr:first_acr] = attacked_rows(info, attacked)
    return "\n".join(rows)


def attacked_rows(info: ModelInfo, attacked: Mapping[str, Any] | None) -> list[str]:
    """Of an attack on these weights; no row where there was none."""
    if attacked is None:
        return []
    how = attacked["attack"]
    by = f"{how['method'].upper()}, {how['steps']} steps, {how['restarts']} starts"
    return [
        f"| accuracy under attack at {entry['eps']}, % | {entry['value']:.2f} | {attacked['n']:,} | {by} | - |"
        for entry in attacked["attacked_accuracy"]
        if entry["eps"] in dataset_info(str(info.dataset)).reported_eps
    ]


def class_table(info: ModelInfo, classes: Sequence[Mapping[str, Any]]) -> str:
    """Natural and certified accuracy of each class that has images; of more than 20, the five best and five worst."""
    classes = [c for c in classes if c["n"]]
    if len(classes) > 20:
        ranked = sorted(classes, key=lambda c: c["correct"] / c["n"], reverse=True)
        classes = [*ranked[:5], *ranked[-5:]]
    eps = list(classes[0]["certified"])
    rows = [
        "| class | test images | natural accuracy, % | " + " | ".join(f"certified at {e}, %" for e in eps) + " |",
        "|---|---:|---:" + "|---:" * len(eps) + "|",
    ]
    names = dataset_info(str(info.dataset)).classes
    for entry in classes:
        counts = [entry["correct"], *(entry["certified"][e] for e in eps)]
        shares = " | ".join(down(Fraction(100 * count, entry["n"]), 2) for count in counts)
        rows.append(f"| {names[entry['class']] if names else entry['class']} | {entry['n']:,} | {shares} |")
    return "\n".join(rows)


def seeds_table(info: ModelInfo, others: Sequence[Mapping[str, Any]]) -> str:
    """This model beside the same recipe trained with other seeds (`training/evaluate.py --as-seed-of`)."""
    eps = [str(m.eps) for m in certified(info)]
    rows = [
        "| seed | natural accuracy, % | " + " | ".join(f"certified at {e}, %" for e in eps) + " | ACR, % |",
        "|---:|---:" + "|---:" * len(eps) + "|---:|",
    ]
    mine = [percent(m) for m in (info.metric("accuracy"), *certified(info), info.metric("acr_percent"))]
    rows.append(f"| {info.recipe.get('seed', '-')} (this model) | " + " | ".join(mine) + " |")
    for other in others:
        values = {(m["metric"], m["eps"]): m["value"] for m in other["metrics"]}
        keys = [("accuracy", None), *(("certified_accuracy", e) for e in eps), ("acr_percent", info.eps_max)]
        rows.append(f"| {other['seed']} | " + " | ".join(decimal_down(values[key], 2) for key in keys) + " |")
    return "\n".join(rows)


def metadata(info: ModelInfo) -> ModelCardData:
    """The card's YAML, validated by huggingface_hub."""
    facts = dataset_info(str(info.dataset))
    tags = ["certified-robustness", "adversarial-robustness", "interval-bound-propagation", "acert-zoo", "safetensors"]
    results = [
        EvalResult(
            task_type="image-classification",
            task_name="Image classification",
            dataset_type=facts.hub_id or facts.name,
            dataset_name=facts.display_name,
            dataset_split=m.split,
            metric_type=m.metric,
            metric_name=metric_label(m),
            metric_value=m.value,
            metric_args={
                key: value
                for key, value in {
                    "eps": m.eps, "norm": "linf", "method": m.method, "rounding": m.rounding, "n": m.n, "unit": m.unit,
                }.items()
                if value is not None
            },
        )
        for m in info.metrics
    ]  # fmt: skip
    return ModelCardData(
        license=str(info.license).lower(),
        library_name="acert-zoo",
        pipeline_tag="image-classification",
        datasets=[facts.hub_id] if facts.hub_id else None,
        metrics=["accuracy"],
        tags=tags,
        model_name=info.name,
        eval_results=results,
    )
