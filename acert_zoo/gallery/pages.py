"""The HTML pages, from Jinja2 templates."""

from __future__ import annotations

from fractions import Fraction
from itertools import count
from math import ceil, floor
from pathlib import Path
from typing import Any

from acert_zoo._version import __version__
from acert_zoo.data.registration import dataset_info
from acert_zoo.errors import MissingDependencyError
from acert_zoo.exact_numbers import decimal_down, down, duration, parse_eps
from acert_zoo.gallery.decided import Decided
from acert_zoo.gallery.eps_grid import REACH, eps_grid
from acert_zoo.gallery.evaluations import StoredEvaluation, wilson_interval
from acert_zoo.gallery.image_wall import sample_facts
from acert_zoo.gallery.wording import METHOD_TITLES, TERMS, VERIFIERS
from acert_zoo.zoo.model_info import Metric, ModelInfo

TEMPLATES = Path(__file__).with_name("templates")
FIGURE_TERMS = {
    "accuracy": "natural accuracy",
    "acr": "certified radius",
    "acr_percent": "ACR",
    "certified_accuracy": "certified accuracy",
}
NAVIGATION = (
    ("index.html", "Trade-off"),
    ("wall.html", "Image wall"),
    ("prove.html", "Prove it"),
    ("compare.html", "Compare"),
)


class Pages:
    """Renders pages; `tag` is the git tag that torch.hub snippets name."""

    def __init__(self, tradeoff: dict[str, Any], tag: str = f"v{__version__}") -> None:
        try:
            from jinja2 import Environment, FileSystemLoader, StrictUndefined
        except ImportError as error:
            raise MissingDependencyError("the gallery needs Jinja2: pip install 'acert-zoo[site]'") from error
        self.environment = Environment(
            loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        self.environment.filters |= {"down": _down, "thousands": lambda n: f"{n:,}", "duration": duration}
        self.environment.filters["parts"] = lambda name: name.replace("_", "_ ").split(" ")
        self.environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # methods keep the order of their legend
        self.environment.globals["unique"] = count().__next__
        self.environment.globals |= {
            "navigation": NAVIGATION,
            "terms": TERMS,
            "methods": METHOD_TITLES,
            "version": __version__,
            "tag": tag,
        }
        self.tradeoff = tradeoff
        self.datasets = {d["name"]: d for d in tradeoff["datasets"]}

    def index(self) -> str:
        return self._render("index.html", tradeoff=self.tradeoff)

    def compare(self) -> str:
        return self._render("compare.html", tradeoff=self.tradeoff)

    def wall(self) -> str:
        """The image wall's page; its bars are full at 1.5 eps_max."""
        datasets = []
        for name, d in self.datasets.items():
            models = [{"name": m["name"]} for m in d["models"]]
            shown = max(d["models"], key=lambda m: (m["method"] == "acert", m["acr"]))["name"]
            facts = {**sample_facts(name), "name": name, "grey_levels": d["grey_levels"], **self._full_bar(name)}
            datasets.append({**facts, "models": models, "shown": shown})
        return self._render("wall.html", data={"datasets": datasets})

    def prove(self, models: list[dict[str, Any]]) -> str:
        """The page of proofs; `models` are {"name", "dataset", "input_shape", "bytes"}."""
        names = dict.fromkeys(m["dataset"] for m in models)
        datasets = {}
        for name in names:
            d = self.datasets[name]
            grid = {key: d[key] for key in ("grey_levels", "step", "last", "reported")}
            datasets[name] = {**sample_facts(name), **grid}
        shown = next((m["name"] for m in models if m["name"] == "mnist_kappa000"), models[0]["name"])
        return self._render("prove.html", data={"models": models, "datasets": datasets, "shown": shown})

    def model(self, info: ModelInfo, versions: list[ModelInfo], stored: StoredEvaluation, provable: bool) -> str:
        dataset = self.datasets[str(info.dataset)]
        row = next(m for m in dataset["models"] if m["name"] == info.name)
        kept = {key: value for key, value in dataset.items() if key not in ("models", "fronts", "acr_fronts")}
        return self._render(
            "model.html",
            root="../",
            info=info,
            versions=versions,
            stored=stored,
            provable=provable,
            attacked=0 if stored.attacked is None else len(stored.attacked),
            figures=[_figure(m) for m in info.metrics],
            decided=[(d, decided_shares(d)) for d in stored.decided],
            classes=self._classes(info, stored),
            title=dataset["title"],
            curve={"dataset": kept, "model": row},
            members=info.recipe.get("members", ()),
            listed={m["name"] for m in dataset["models"]},
            gates=info.recipe.get("gates", ()),
        )

    def _classes(self, info: ModelInfo, stored: StoredEvaluation) -> list[dict[str, Any]]:
        names = sample_facts(str(info.dataset))["classes"]
        return [
            {"name": names[c["class"]], "n": c["n"], "correct": Fraction(100 * c["correct"], c["n"])}
            | {"certified": {eps: Fraction(100 * k, c["n"]) for eps, k in c["certified"].items()}}
            for c in stored.classes
            if c["n"]
        ]

    def _full_bar(self, dataset: str) -> dict[str, Any]:
        """The radius of a full bar on the image wall, as a number and as people write it."""
        grid = eps_grid(dataset_info(dataset))
        full = REACH * parse_eps(self.datasets[dataset]["eps_max"])
        return {"full": float(full), "full_text": grid.text(full)}

    def _render(self, template: str, **values: Any) -> str:
        values = {"root": "", "page": template, "datasets": list(self.datasets.values()), **values}
        return self.environment.get_template(template).render(**values)


def _figure(m: Metric) -> dict[str, Any]:
    """One row of a model's table of figures: what it is, its value, confidence interval, and who says so."""
    titles = {"accuracy": "natural accuracy", "acr": "mean radius, pixel units", "acr_percent": f"ACR, % of {m.eps}"}
    interval = None
    if m.unit == "%" and m.metric != "acr_percent":
        low, high = wilson_interval(round(m.value * m.n / 100), m.n)
        interval = _interval(low, high)
    return {
        "title": titles.get(m.metric, f"{m.metric.replace('_', ' ')} at {m.eps}"),
        "term": FIGURE_TERMS.get(m.metric),
        "value": f"{_down(m.value)} %" if m.unit == "%" else _down(m.value, 6),
        "interval": interval,
        "proof": ", ".join(filter(None, (m.method and m.method.upper(), m.rounding))),
        "n": m.n,
    }


def decided_shares(d: Decided) -> list[dict[str, Any]]:
    """The rows of a table of decided images: what was counted, how many, and the share with its interval.

    Each verifier, from the cheapest on, adds to what those before it proved.
    """
    proved, rows = 0, [("right without any change", d.correct)]
    for method, more in d.proved_by.items():
        proved += more
        start = "proved robust by" if len(rows) == 1 else "… or by"
        rows.append((f"{start} {VERIFIERS.get(method, method)}", proved))
    rows += [("not broken by any attack", d.unbroken), ("undecided", d.undecided)]
    return [
        {
            "title": title,
            "count": number,
            "share": _down(Fraction(100 * number, d.n)),
            "interval": _interval(*wilson_interval(number, d.n)),
        }
        for title, number in rows
    ]


def _interval(low: float, high: float) -> str:
    """An interval in percent with one decimal, rounded outward."""
    return f"{floor(10 * low) / 10:.1f} to {ceil(10 * high) / 10:.1f} %"


def _down(value: float | Fraction, digits: int = 2) -> str:
    """`value`, read as the decimal it prints as, cut to `digits` decimals."""
    return down(value, digits) if isinstance(value, Fraction) else decimal_down(value, digits)
