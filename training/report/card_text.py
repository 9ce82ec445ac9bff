"""The text of one model card, from the registry's record and the stored evaluation: nothing in it is typed by hand.

Figures are rounded down, never to nearest: a card states no more than was measured or proved.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from acert_zoo._version import SOURCE
from acert_zoo.cli.numbers import duration
from acert_zoo.data.registration import dataset_info
from acert_zoo.exact_numbers import decimal_down, parse_eps
from acert_zoo.zoo.model_info import Metric, ModelInfo
from training.report.card_facts import CASCADE_ROUNDING_TEXT, DECIDED_TEXT, METHOD_TEXT, PAPER_BIBTEX, ROUNDING_TEXT
from training.report.tradeoff import picture
from training.results.decided_table import decided_table


def paragraph(text: str) -> str:
    """One paragraph, wrapped."""
    return textwrap.fill(" ".join(text.split()), 116, break_long_words=False, break_on_hyphens=False)


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


def recipe_toml(recipe: Mapping[str, Any]) -> str:
    """The resolved recipe as TOML: training/train.py --recipe FILE.toml takes it."""
    plain = {k: v for k, v in recipe.items() if not isinstance(v, Mapping)}
    tables = {k: v for k, v in recipe.items() if isinstance(v, Mapping)}
    lines = [f"{k} = {json.dumps(v)}" for k, v in plain.items()]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{k} = {json.dumps(v)}" for k, v in table.items())]
    return "\n".join(lines) + "\n"


def results_table(info: ModelInfo) -> str:
    rows = ["| | value | test images | bound | rounding |", "|---|---:|---:|---|---|"]
    for m in info.metrics:
        value = decimal_down(m.value, 6 if m.unit == "pixel" else 2)
        bound = m.method.upper() if m.method else "-"
        rows.append(f"| {metric_label(m)} | {value} | {m.n:,} | {bound} | {m.rounding or '-'} |")
    return "\n".join(rows)


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
    epochs = f", {training['epochs']} epochs" if training.get("epochs") else ""
    start = info.recipe.get("init_from")
    base = f", beginning with the weights of `{Path(start).name}` (whose own cost comes on top)" if start else ""
    return f"{duration(training['seconds'])}{on}{epochs}{base}."


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


def test_set_note(evaluation: Mapping[str, Any] | None) -> str:
    inexact = (evaluation or {}).get("test_inexact", [])
    if not inexact:
        return ""
    text = (
        f"{len(inexact)} of these test images are JPEG approximations of the originals in the copy of the data set "
        "that was used (labels and positions are right)."
    )
    return f"\n{paragraph(text)}\n"


def proved(info: ModelInfo) -> str:
    """What the figures prove, at their rounding level."""
    level = next((m.rounding for m in info.metrics if m.rounding), "") or ""
    if not level:
        return "Nothing: no certified metric is recorded."
    if info.kind == "cascade":
        return CASCADE_ROUNDING_TEXT.format(level=level)
    return ROUNDING_TEXT.get(level, level)


def limits(info: ModelInfo) -> str:
    """What the model is for and what it is not."""
    more = """Certified training costs natural accuracy.
The network was trained at a small scale; larger networks reach more (see the grey curves where there are any)."""
    if info.kind == "cascade":
        more = "Images\nthat only an accurate last stage answers have little or no certified radius."
    return f"""For research on certified robustness, as a baseline, and wherever a small classifier with a guarantee is of use. The
guarantee is about l-inf perturbations of pixels alone: not about rotations, blur, other corruptions, other norms or
images unlike {dataset_info(str(info.dataset)).display_name}, and it does not say that the label itself is right. {more}"""  # noqa: E501


def smallest_radius(info: ModelInfo) -> str:
    """A sentence where the recipe departs from the paper's ACERT by a smallest radius, else nothing."""
    smallest = info.recipe.get("radius", {}).get("eps_min", "0")
    if info.method != "acert" or smallest == "0":
        return ""
    return (
        f" No image was trained at a radius below {smallest} (`radius.eps_min`; the paper's ACERT has no such floor)."
    )


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


def cascade_section(members: Sequence[Mapping[str, Any]], gates: Sequence[Any]) -> str:
    rows = ["| stage | member | answers where |", "|---:|---|---|"]
    for i, member in enumerate(members):
        rule = f"its own prediction is proved at radius {gates[i]}" if i < len(gates) else "no earlier stage did"
        rows.append(f"| {i + 1} | `{member['name']}` | {rule} |")
    return "\n## Stages\n\n" + "\n".join(rows) + "\n"


def render(
    info: ModelInfo,
    *,
    evaluation: Mapping[str, Any] | None = None,
    versions: Sequence[ModelInfo] = (),
    figure: str | None = None,
    figure_form: str = "svg",
    repo_id: str | None = None,
    cascade: Mapping[str, Any] | None = None,
    decided: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The whole card of one model.

    Args:
        evaluation: the stored evaluation's document.
        versions: all registered versions of the name.
        figure: path prefix of the figure in which this model is marked, relative to the card.
        repo_id: Hub repository that the card describes.
        cascade: the cascade file's document (members, gates).
        decided: entries of `training.decide`, one for each eps.
    """
    name, dataset = info.name, str(info.dataset)
    facts = dataset_info(dataset)
    pretty, terms = facts.display_name, facts.license or "The licence of the data set is not stated"
    accuracy, acr = info.metric("accuracy"), info.metric("acr_percent")
    best = certified(info)
    headline = f"{percent(accuracy)} % natural accuracy"
    if acr is not None:
        headline += f", ACR {percent(acr)} % of {acr.eps}"
    if best:
        headline += ", certified accuracy " + " and ".join(f"{percent(m)} % at {m.eps}" for m in best)
    kappa = "" if info.kappa is None else f", kappa {info.kappa:g}"
    what = f"{METHOD_TEXT.get(str(info.method), str(info.method))}{kappa}"
    what = (
        "A certified cascade of zoo models, not trained any further"
        if info.kind == "cascade"
        else f"Trained with {what}"
    )
    size = f", {info.parameters:,} parameters" if info.parameters else ""
    load = f"hf-hub:{repo_id}" if repo_id else name
    eps = best[0].eps if best else info.eps_max
    opening = f"""An image classifier for {pretty} whose l-inf robustness is proved image by image: {headline}
    ({accuracy.n if accuracy else 0:,} test images). {what}{size}. Raw pixels in [0, 1] go in, logits come
    out; normalisation is part of the model."""
    body = f"""# {name}

{paragraph(opening)}

## Use

`pip install {SOURCE}`, then

```python
import acert_zoo

model = acert_zoo.load_model("{load}")
result = acert_zoo.certify(model, *acert_zoo.sample_data("{dataset}"))
result.accuracy, result.acr, result.certified_accuracy("{eps}")
```

or `acert-zoo certify --model {load}` on the command line.
{cascade_section(cascade["members"], cascade["gates"]) if cascade else ""}
## Results

{results_table(info)}
{test_set_note(evaluation)}
All numbers are rounded down. An image counts as certified at eps where it is classified correctly and no image within
l-inf distance eps of it (in pixel units, inside [0, 1]) is classified otherwise: proved, not attacked. Misclassified
images have radius 0 in the ACR.
"""
    if decided:
        body += f"\n## Between proof and attack\n\n{decided_table(decided)}\n\n{paragraph(DECIDED_TEXT)}\n"
    if figure:
        body += "\n" + picture(figure, f"Accuracy against average certified radius, {name} marked", figure_form) + "\n"
    body += f"""
## What is proved

{paragraph(proved(info))}

## Intended use and limits

{limits(info)}

## Training

{paragraph(training_data(info))}

{paragraph("Cost to train: " + cost(info) + smallest_radius(info))}
"""
    if info.recipe:
        body += (
            "\n<details><summary>Recipe</summary>\n\n```toml\n"
            + recipe_toml(info.recipe)
            + f"```\n\n{recipe_use(info, cascade)}\n\n</details>\n"
        )
    body += "\n## Versions\n\n| version | natural accuracy, % | ACR, % | sha256 of the weights |\n|---|---:|---:|---|\n"
    for v in versions or (info,):
        body += (
            f"| {v.versioned_name} | {percent(v.metric('accuracy'))} | {percent(v.metric('acr_percent'))} "
            f"| `{v.sha256}` |\n"
        )
    body += f"""
## Licence

The weights are under {info.license}. {terms}.

## Citation

```bibtex
{PAPER_BIBTEX}

{facts.bibtex}
```
"""
    return str(ModelCard(f"---\n{metadata(info).to_yaml(line_break=chr(10))}\n---\n\n{body}"))
