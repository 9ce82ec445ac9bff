"""The text of one model card, from the registry's record and the stored evaluation: nothing in it is typed by hand.

Figures are rounded down, never to nearest: a card states no more than was measured or proved.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import ModelCard

from acert_zoo._version import SOURCE
from acert_zoo.data.registration import dataset_info
from acert_zoo.zoo.meta_network import multiply_adds
from acert_zoo.zoo.model_info import ModelInfo
from training.report.card_facts import (
    CASCADE_ROUNDING_TEXT,
    DECIDED_TEXT,
    METHOD_TEXT,
    PAPER_BIBTEX,
    ROUNDING_TEXT,
    SEEDS_TEXT,
)
from training.report.card_metrics import certified, class_table, metadata, percent, results_table, seeds_table
from training.report.card_training import cost, recipe_toml, recipe_use, smallest_radius, training_data
from training.report.tradeoff import picture
from training.results.decided_table import decided_table


def paragraph(text: str) -> str:
    """One paragraph, wrapped."""
    return textwrap.fill(" ".join(text.split()), 116, break_long_words=False, break_on_hyphens=False)


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


def cascade_section(members: Sequence[Mapping[str, Any]], gates: Sequence[Any]) -> str:
    rows = ["| stage | member | answers where |", "|---:|---|---|"]
    for i, member in enumerate(members):
        rule = f"its own prediction is proved at radius {gates[i]}" if i < len(gates) else "no earlier stage did"
        rows.append(f"| {i + 1} | `{member['name']}` | {rule} |")
    return "\n## Stages\n\n" + "\n".join(rows) + "\n"


def opening(info: ModelInfo) -> str:
    """What the model is, how good, and how large, in two sentences."""
    accuracy, acr = info.metric("accuracy"), info.metric("acr_percent")
    headline = f"{percent(accuracy)} % natural accuracy"
    if best := certified(info):
        headline += ", certified accuracy " + " and ".join(f"{percent(m)} % at {m.eps}" for m in best)
    if acr is not None:
        headline += f", ACR {percent(acr)} % of {acr.eps}"
    kappa = "" if info.kappa is None else f", kappa {info.kappa:g}"
    what = f"Trained with {METHOD_TEXT.get(str(info.method), str(info.method))}{kappa}"
    if info.kind == "cascade":
        what = "A certified cascade of zoo models, not trained any further"
    size = f", {info.parameters:,} parameters" if info.parameters else ""
    if info.kind == "model" and info.arch_kwargs:
        size += f", {multiply_adds(info):,} multiply-adds an image"
    return f"""An image classifier for {dataset_info(str(info.dataset)).display_name} whose l-inf robustness is proved
    image by image: {headline} ({accuracy.n if accuracy else 0:,} test images). {what}{size}. Raw pixels in [0, 1] go
    in, logits come out; normalisation is part of the model."""


def versions_table(versions: Sequence[ModelInfo]) -> str:
    """A row for each version of the name."""
    rows = ["| version | natural accuracy, % | ACR, % | sha256 of the weights |", "|---|---:|---:|---|"]
    for v in versions:
        figures = f"{percent(v.metric('accuracy'))} | {percent(v.metric('acr_percent'))}"
        rows.append(f"| {v.versioned_name} | {figures} | `{v.sha256}` |")
    return "\n".join(rows)


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
    attacked: Mapping[str, Any] | None = None,
    seeds: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The whole card of one model.

    Args:
        evaluation: the stored evaluation's document.
        versions: all registered versions of the name.
        figure: path prefix of the figure in which this model is marked, relative to the card.
        repo_id: Hub repository that the card describes.
        cascade: the cascade file's document (members, gates).
        decided: entries of `training/results/decide.py`, one for each eps.
        attacked: the stored document of `training/attack.py`.
        seeds: entries of `training/results/seeds.py`, one for each other seed.
    """
    name, dataset = info.name, str(info.dataset)
    facts = dataset_info(dataset)
    best = certified(info)
    load = f"hf-hub:{repo_id}" if repo_id else name
    eps = best[0].eps if best else info.eps_max
    body = f"""# {name}

{paragraph(opening(info))}

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

{results_table(info, attacked)}
{test_set_note(evaluation)}
All numbers are rounded down. An image counts as certified at eps where it is classified correctly and no image within
l-inf distance eps of it (in pixel units, inside [0, 1]) is classified otherwise: proved, not attacked. Misclassified
images have radius 0 in the ACR.
"""
    if decided:
        body += f"\n## Between proof and attack\n\n{decided_table(decided)}\n\n{paragraph(DECIDED_TEXT)}\n"
    if seeds:
        body += f"\n## Another seed\n\n{paragraph(SEEDS_TEXT)}\n\n{seeds_table(info, seeds)}\n"
    if classes := (evaluation or {}).get("classes"):
        table = class_table(info, classes)
        which = " (the five best and the five worst)" if len(classes) > 20 else ""
        body += f"\n<details><summary>Each class{which}</summary>\n\n{table}\n\n</details>\n"
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
        recipe = f"```toml\n{recipe_toml(info.recipe)}```\n\n{recipe_use(info, cascade)}"
        body += f"\n<details><summary>Recipe</summary>\n\n{recipe}\n\n</details>\n"
    terms = facts.license or "The licence of the data set is not stated"
    body += f"\n## Versions\n\n{versions_table(versions or (info,))}\n"
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
