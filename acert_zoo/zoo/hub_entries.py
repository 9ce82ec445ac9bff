"""The functions behind `hubconf.py`: one entry point of torch.hub for each registered name, made from its record.

A checkpoint's docstring is what `torch.hub.help` prints: what it is, what was measured (with n, method and rounding),
and its licence. Loading needs only torch, safetensors and numpy, as the weights are bundled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from acert_zoo.errors import InvalidInputError, UnknownNameError
from acert_zoo.exact_numbers import decimal_down
from acert_zoo.zoo import registry
from acert_zoo.zoo.model_info import Metric, ModelInfo

_TITLES = {
    "accuracy": "natural accuracy",
    "acr": "average certified radius (ACR)",
    "acr_percent": "ACR relative to the training radius",
    "certified_accuracy": "certified accuracy",
}


def entry_points() -> dict[str, Callable[..., Any]]:
    """All entry points by name: every registered checkpoint, and `acert`."""
    entries: dict[str, Callable[..., Any]] = {
        name: _entry(registry.model_info(name)) for name in registry.list_models()
    }
    return {**entries, "acert": acert}


def acert(
    dataset: str = "cifar10", kappa: float = 0.25, nearest: bool = False, progress: bool = True, **options: Any
) -> Any:
    """The ACERT-trained model of a data set with a given kappa (the weight of accuracy against robustness).

    Where a data set has models of several eps_max, those of the largest are meant; load others by name.

    Args:
        dataset: "cifar10", "mnist", "tinyimagenet", ...
        kappa: a registered value, exactly; 0 is the most robust.
        nearest: take the nearest registered kappa instead of raising an error.
        progress: whether a download shows a progress bar.
        options: those of `acert_zoo.load_model`.

    Raises:
        ValueError: there is no such model; the message lists the registered values of kappa.
    """
    models = [registry.model_info(name) for name in registry.list_models()]
    trained = [m for m in models if m.method == "acert" and m.kind == "model" and m.kappa is not None]
    acert_models = registry.at_largest_radius(trained)
    found = {float(m.kappa): m.name for m in acert_models if m.dataset == dataset}  # type: ignore[arg-type]
    if not found:
        raise UnknownNameError.near("data set with ACERT models", dataset, {str(m.dataset) for m in acert_models})
    if isinstance(kappa, bool) or not isinstance(kappa, (int, float)) or not 0 <= kappa <= 1:
        raise InvalidInputError(f"kappa = {kappa!r}; expected a number in [0, 1]")
    if kappa not in found and not nearest:
        values = ", ".join(f"{k:g}" for k in sorted(found))
        raise UnknownNameError(
            f"no {dataset} model with kappa {kappa:g}; known: {values} (nearest=True takes the nearest)"
        )
    chosen = min(sorted(found), key=lambda k: abs(k - kappa))
    return _load(found[chosen], progress, options)


def _entry(info: ModelInfo) -> Callable[..., Any]:
    def load(version: int | None = None, progress: bool = True, **options: Any) -> Any:
        name = info.name if version is None else f"{info.name}.v{version}"
        return _load(name, progress, options)

    load.__name__ = load.__qualname__ = info.name
    load.__doc__ = describe(info)
    return load


def _load(name: str, progress: bool, options: dict[str, Any]) -> Any:
    from acert_zoo.zoo.load import load_model

    return load_model(name, progress=progress, **options)


def describe(info: ModelInfo) -> str:
    """What torch.hub.help shows of a checkpoint."""
    training = f"{info.method} training" + ("" if info.kappa is None else f", kappa {info.kappa:g}")
    radius = f", radii up to {info.eps_max}" if info.eps_max else ""
    size = f"{info.arch} network" + (f" of {info.parameters:,} parameters" if info.parameters else "")
    measured = [f"- {metric_line(m)}" for m in info.metrics] or ["- nothing recorded"]
    what = f"{training}{radius}; {size}."
    if info.kind == "cascade":
        what = f"Certified cascade of zoo models; {info.parameters or 0:,} parameters."
    lines = [
        f"{info.versioned_name}: {info.dataset} classifier with certified l-inf robustness.",
        what,
        "",
        "Takes raw pixels [N, C, H, W] in [0, 1] (normalisation is inside), gives logits; in eval mode.",
        "",
        "Measured:",
        *measured,
        "",
        f"Licence of the weights: {info.license or 'not stated'}",
        "",
        "Args:",
        "    version: an older version's number; the newest by default.",
        "    progress: whether a download shows a progress bar.",
        "    options: those of acert_zoo.load_model (cache_dir, local_files_only, force_download, token).",
        "",
        f"Example: model = torch.hub.load(REPOSITORY, {info.name!r}, trust_repo=True)",
    ]
    return "\n".join(lines)


def metric_line(metric: Metric) -> str:
    """One measured number with all that belongs to it; digits are cut off, never rounded up past what was proved."""
    at = f" at {metric.eps}" if metric.eps else ""
    value = decimal_down(metric.value, 2 if metric.unit == "%" else 6)
    unit = " %" if metric.unit == "%" else f" ({metric.unit} units)" if metric.unit == "pixel" else f" {metric.unit}"
    how = ", ".join(
        filter(None, (f"n = {metric.n:,}", f"{metric.dataset} {metric.split}", metric.method, metric.rounding))
    )
    return f"{_TITLES[metric.metric]}{at}: {value}{unit} ({how})"
