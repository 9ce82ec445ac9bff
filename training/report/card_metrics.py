"""What a card says of the figures: the table of results, and the same as the YAML that the Hub reads."""

from __future__ import annotations

from huggingface_hub import EvalResult, ModelCardData

from acert_zoo.data.registration import dataset_info
from acert_zoo.exact_numbers import decimal_down, parse_eps
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


def results_table(info: ModelInfo) -> str:
    rows = ["| | value | test images | bound | rounding |", "|---|---:|---:|---|---|"]
    for m in info.metrics:
        value = decimal_down(m.value, 6 if m.unit == "pixel" else 2)
        bound = m.method.upper() if m.method else "-"
        rows.append(f"| {metric_label(m)} | {value} | {m.n:,} | {bound} | {m.rounding or '-'} |")
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
