"""What is written about the zoo, rendered from the registry: `render_all`.

model_cards/NAME.md and its figure for every model, the index model_cards/README.md, the figures in docs/figures, and
the blocks between `<!-- NAME -->` and `<!-- /NAME -->` of README.md (zoo-table, zoo-figure, decided-table) and of
docs/decide.md (decided-table).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from acert_zoo.data.registration import dataset_info, dataset_names, read_registration, register_dataset
from acert_zoo.zoo import registry
from acert_zoo.zoo.model_info import ModelInfo
from training.report import card_text, tradeoff
from training.report.card_facts import SHORT_METHOD
from training.report.card_metrics import certified, percent
from training.results.decided_table import decided_overview, read_decided
from training.results.seeds import read_seeds
from training.results.zoo_folder import ZooFolder, read_document, write_atomic

FIGURE_FOLDER = "figures"


def _cascade(zoo: ZooFolder, info: ModelInfo) -> dict[str, Any] | None:
    if info.kind != "cascade":
        return None
    document: dict[str, Any] = json.loads((zoo.package / str(info.file)).read_text(encoding="utf-8"))
    return document


def newest(zoo: ZooFolder) -> list[tuple[ModelInfo, list[ModelInfo]]]:
    """(newest version, all versions) of every name in the registry, by data set, then name."""
    groups: dict[str, list[ModelInfo]] = {}
    for info in registry.read_registry(zoo.registry):
        groups.setdefault(info.name, []).append(info)
    return sorted(((v[-1], v) for v in groups.values()), key=lambda pair: (str(pair[0].dataset), pair[0].name))


def card(
    zoo: ZooFolder,
    info: ModelInfo,
    versions: list[ModelInfo],
    *,
    figure: str | None,
    figure_form: str = "svg",
    repo_id: str | None = None,
) -> str:
    """The card of `info`; `figure` is the prefix of its figure's files relative to the card."""
    return card_text.render(
        info,
        evaluation=read_document(zoo.evaluation(info.name, info.version), info.sha256),
        versions=versions,
        figure=figure,
        figure_form=figure_form,
        repo_id=repo_id,
        cascade=_cascade(zoo, info),
        decided=read_decided(zoo.decided(info.name, info.version), info.sha256),
        attacked=read_document(zoo.attack(info.name, info.version), info.sha256),
        seeds=read_seeds(zoo.seeds(info.name, info.version), info.sha256),
    )


def models_table(infos: list[ModelInfo], link: str) -> str:
    """A table of models with their numbers; `link` is the folder of the cards relative to the table."""
    rows = [
        "| model | trained with | kappa | accuracy, % | certified accuracy, % | ACR, % of eps_max | parameters |",
        "|---|---|---:|---:|---|---:|---:|",
    ]
    for info in infos:
        acr = info.metric("acr_percent")
        proved = ", ".join(f"{percent(m)} at {m.eps}" for m in certified(info)) or "-"
        method = "cascade" if info.kind == "cascade" else str(info.method)
        rows.append(
            f"| [`{info.name}`]({link}{info.name}.md) | {SHORT_METHOD.get(method, method)} "
            f"| {'-' if info.kappa is None else f'{info.kappa:g}'} | {percent(info.metric('accuracy'))} "
            f"| {proved} | {percent(acr)}{f' of {acr.eps}' if acr else ''} "
            f"| {f'{info.parameters:,}' if info.parameters else '-'} |"
        )
    return "\n".join(rows)


def _grouped(infos: list[ModelInfo], heading: str, link: str) -> str:
    parts = []
    for dataset in dict.fromkeys(str(i.dataset) for i in infos):
        members = [i for i in infos if i.dataset == dataset]
        parts.append(f"{heading} {dataset_info(dataset).display_name}\n\n{models_table(members, link)}\n")
    return "\n".join(parts)


def _counts(infos: list[ModelInfo]) -> str:
    n = {m.n for i in infos for m in i.metrics}
    images = "no images" if not n else f"{min(n):,}" if len(n) == 1 else f"{min(n):,} to {max(n):,}"
    return (
        f"{images} test images; ACR and certified accuracy from rounding-sound interval bounds (IBP) unless a card "
        "says otherwise; all numbers rounded down."
    )


def index(zoo: ZooFolder) -> str:
    """model_cards/README.md."""
    infos = [info for info, _ in newest(zoo)]
    text = "# Model cards\n\nRendered from the registry by `make cards`; do not edit.\n\n"
    if not infos:
        return text + "The zoo has no models yet.\n"
    return text + f"{_counts(infos)}\n\n{_grouped(infos, '##', '')}"


def readme_blocks(zoo: ZooFolder) -> dict[str, str]:
    """The blocks of README.md that are rendered: name -> content."""
    infos = [info for info, _ in newest(zoo)]
    figures = [
        tradeoff.picture(
            f"docs/figures/tradeoff-{d}", f"{dataset_info(d).display_name}: accuracy against average certified radius"
        )
        for d, points in tradeoff.registry_points(zoo).items()
        if d == "cifar10" or len(points) > 2
    ]
    table = f"{_grouped(infos, '###', 'model_cards/')}\n{_counts(infos)}" if infos else "The zoo has no models yet."
    return {"zoo-table": table, "zoo-figure": "\n\n".join(figures[:1]), **decided_block(zoo, "model_cards/")}


def decided_block(zoo: ZooFolder, link: str) -> dict[str, str]:
    """The models that were decided; `link` is the folder of the cards relative to the page."""
    entries = ((i.name, read_decided(zoo.decided(i.name, i.version), i.sha256)) for i, _ in newest(zoo))
    return {"decided-table": decided_overview(entries, link)}


def fill_blocks(text: str, blocks: dict[str, str]) -> str:
    """`text` with the content between each block's markers replaced; blocks without markers are left out."""
    for name, content in blocks.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        text = pattern.sub("\n".join(filter(None, (begin, content, end))).replace("\\", r"\\"), text)
    return text


def render_all(zoo: ZooFolder, *, check: bool = False) -> list[Path]:
    """Renders everything that is stale; returns those files. With `check`, only names them."""
    for file in sorted(zoo.registrations.glob("*.toml")):  # another checkout may know data sets of its own
        if file.stem not in dataset_names():
            register_dataset(read_registration(file).without_files())
    stale = tradeoff.render_zoo(zoo, check=check)
    points = tradeoff.registry_points(zoo)
    texts: dict[Path, str] = {}
    for info, versions in newest(zoo):
        shown = points.get(str(info.dataset), [])
        marked = any(p.name == info.name for p in shown)
        if marked:
            stale += tradeoff.render(
                zoo.cards / FIGURE_FOLDER, info.name, "tradeoff", shown, mark=info.name, forms=("svg",), check=check
            )
        figure = f"{FIGURE_FOLDER}/{info.name}" if marked else None
        repo_id = info.hub.repo_id if info.hub else None
        texts[zoo.cards / f"{info.name}.md"] = card(zoo, info, versions, figure=figure, repo_id=repo_id)
    texts[zoo.cards / "README.md"] = index(zoo)
    for page, blocks in (
        ("README.md", readme_blocks(zoo)),
        ("docs/decide.md", decided_block(zoo, "../model_cards/")),
    ):
        path = zoo.root / page
        if path.is_file():
            texts[path] = fill_blocks(path.read_text(encoding="utf-8"), blocks)
    for path, text in texts.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(path)
            if not check:
                write_atomic(path, text)
    return stale
