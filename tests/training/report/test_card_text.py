"""The text of a model card: every part, figures rounded down with their provenance, and metadata the Hub accepts.

Also tested here: training/report/card_facts.py, training/report/card_metrics.py, training/report/card_training.py.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from acert_zoo.zoo.model_info import Metric, ModelInfo
from training.recipes.recipe import Recipe
from training.report import card_text
from training.report.card_metrics import class_table, results_table


def metric(name: str, value: float, eps: str | None = None, unit: str = "%") -> Metric:
    proof = {} if name == "accuracy" else {"method": "ibp", "rounding": "real-sound"}
    return Metric(metric=name, value=value, unit=unit, n=10000, dataset="cifar10", split="test", eps=eps, **proof)


INFO = ModelInfo(
    name="cifar10_kappa025",
    arch="cnn",
    arch_kwargs={},
    dataset="cifar10",
    method="acert",
    kappa=0.25,
    eps_max="8.8/255",
    sha256="ab" * 32,
    parameters=1116970,
    metrics=(
        metric("accuracy", 55.399999),
        metric("acr", 0.010449999, unit="pixel"),
        metric("acr_percent", 30.279999, "8.8/255"),
        metric("certified_accuracy", 40.999999, "2/255"),
        metric("certified_accuracy", 14.2, "8/255"),
    ),
    recipe=Recipe().to_dict() | {"arch_kwargs": {"convs": [[32, 2]], "hidden": 256}},
    training={"seconds": 6543.0, "epochs": 16, "threads": 2},
    license="Apache-2.0",
)


@pytest.fixture
def card() -> str:
    return card_text.render(INFO, evaluation={"test_inexact": list(range(20))}, figure="figures/cifar10_kappa025")


def test_every_part_is_there(card: str) -> None:
    headings = re.findall(r"^## (.+)$", card, re.MULTILINE)
    expected = ["Use", "Results", "What is proved", "Intended use and limits", "Training", "Versions", "Licence"]
    assert headings == [*expected, "Citation"]
    assert 'load_model("cifar10_kappa025")' in card
    assert "1 h 49 min on 2 threads of a CPU, 16 epochs" in card
    assert "20 of these test images are JPEG approximations" in card
    assert "figures/cifar10_kappa025-dark.svg" in card
    assert "arXiv:2307.13078" in card
    assert "`real-sound`" in card


def test_figures_are_rounded_down_and_carry_n_method_and_rounding(card: str) -> None:
    assert "| natural accuracy, % | 55.39 | 10,000 | - | - |" in card
    assert "| average certified radius (ACR), pixel units | 0.010449 | 10,000 | IBP | real-sound |" in card
    assert "| ACR, % of 8.8/255 (radii capped there) | 30.27 | 10,000 | IBP | real-sound |" in card
    assert "| certified accuracy at 2/255, % | 40.99 | 10,000 | IBP | real-sound |" in card
    assert "| certified accuracy at 8/255, % | 14.20 | 10,000 | IBP | real-sound |" in card
    assert "41.00" not in card


def test_certified_accuracy_and_attacks_stand_before_the_acr() -> None:
    attack = {"method": "pgd", "steps": 20, "restarts": 2}
    left = [{"eps": "2/255", "value": 43.6}, {"eps": "13.2/255", "value": 1.0}]
    stored = {"weights_sha256": INFO.sha256, "n": 500, "attack": attack, "attacked_accuracy": left}
    labels = re.findall(r"^\| ([^|]*%[^|]*|average[^|]*) \|", results_table(INFO, stored), re.MULTILINE)
    assert [label.split(" ")[0] for label in labels] == [
        "natural",
        "certified",
        "certified",
        "accuracy",
        "average",
        "ACR,",
    ]
    table = results_table(INFO, stored)
    assert "| accuracy under attack at 2/255, % | 43.60 | 500 | PGD, 20 steps, 2 starts | - |" in table
    assert "13.2/255" not in table  # not a reported radius
    assert "under attack" not in results_table(INFO, None)


def test_classes_are_shown_and_of_many_the_best_and_the_worst() -> None:
    def entry(k: int, correct: int) -> dict:
        return {"class": k, "n": 8, "correct": correct, "certified": {"2/255": 1}}

    lines = class_table(INFO, [entry(k, k % 8) for k in range(10)]).splitlines()
    assert len(lines) == 12
    assert lines[2] == "| airplane | 8 | 0.00 | 12.50 |"
    assert lines[5] == "| cat | 8 | 37.50 | 12.50 |"
    many = replace(INFO, dataset="tinyimagenet")
    lines = class_table(many, [entry(k, k % 9) for k in range(200)]).splitlines()
    assert [line.split("|")[3].strip() for line in lines[2:]] == ["100.00"] * 5 + ["0.00"] * 5


def test_share_of_a_core_and_steps() -> None:
    spent = {"seconds": 1000.0, "processor_seconds": 1499.0, "epochs": 2, "threads": 2, "steps_per_epoch": 1234}
    assert "2 epochs of 1,234 steps, 74 % of that time on a core" in " ".join(
        card_text.render(replace(INFO, training=spent)).split()
    )


def test_metadata_pass_huggingface_hubs_validation(card: str) -> None:
    read = ModelCard(card)
    assert read.data.license == "apache-2.0"
    assert read.data.library_name == "acert-zoo"
    assert read.data.pipeline_tag == "image-classification"
    assert read.data.datasets == ["uoft-cs/cifar10"]
    assert read.data.model_name == "cifar10_kappa025"
    assert len(read.data.eval_results) == 5
    front = yaml.safe_load(card.split("---")[1])
    _, results = model_index_to_eval_results(front["model-index"])
    certified = next(r for r in results if r.metric_type == "certified_accuracy" and r.metric_args["eps"] == "2/255")
    expected = {"eps": "2/255", "norm": "linf", "method": "ibp", "rounding": "real-sound", "n": 10000, "unit": "%"}
    assert certified.metric_args == expected
    assert certified.metric_value == 40.999999
    assert str(ModelCard(card)) == card  # reading and writing it again changes nothing


def test_the_recipe_in_the_card_is_the_recipe(card: str) -> None:
    text = re.search(r"```toml\n(.*?)```", card, re.DOTALL)
    assert Recipe.from_dict(tomllib.loads(text[1])).to_dict() == INFO.recipe


def test_a_card_says_where_training_began_and_what_is_not_the_papers(card: str) -> None:
    assert "trains the model again" in card
    assert "no such floor" not in card
    recipe = Recipe.from_dict({"init_from": "runs/a", "radius": {"eps_min": "2/255"}}).to_dict()
    other = " ".join(card_text.render(replace(INFO, recipe=recipe)).split())
    assert "beginning with the weights of `a` (whose own cost comes on top)" in other
    assert "trains the last step again" in other
    assert "No image was trained at a radius below 2/255 (`radius.eps_min`" in other
    assert "no such floor" not in card_text.render(replace(INFO, method="ibp", recipe=recipe))


def test_a_card_for_the_hub_loads_from_its_repository() -> None:
    card = card_text.render(INFO, repo_id="owner/acert-x", figure="tradeoff", figure_form="png")
    assert 'load_model("hf-hub:owner/acert-x")' in card
    assert 'src="tradeoff-light.png"' in card


def test_without_certificates_none_are_claimed() -> None:
    standard = replace(INFO, method="standard", kappa=None, metrics=INFO.metrics[:1], recipe={})
    card = card_text.render(standard)
    assert "certified accuracy" not in card.split("## Use")[0].split("---")[2]
    assert "Nothing: no certified metric is recorded" in card
    assert ModelCard(card).data.eval_results[0].metric_value == 55.399999


def test_a_cascades_stages_are_listed() -> None:
    members = [{"name": "cifar10_kappa025.v1"}, {"name": "cifar10_accurate.v1"}]
    cascade = replace(INFO, name="cifar10_cascade", kind="cascade", method="cascade", kappa=None, recipe={})
    card = card_text.render(cascade, cascade={"members": members, "gates": ["2/255"]})
    assert "| 1 | `cifar10_kappa025.v1` | its own prediction is proved at radius 2/255 |" in card
    assert "| 2 | `cifar10_accurate.v1` | no earlier stage did |" in card


def test_a_cascades_card_says_how_it_came_about_and_what_is_proved() -> None:
    document = {"members": [{"name": "cifar10_kappa025.v1"}, {"name": "cifar10_accurate.v1"}], "gates": ["2/255"]}
    recipe = {"members": ["cifar10_kappa025.v1", "cifar10_accurate.v1"], "gates": ["2/255"], "chosen": "by hand"}
    info = replace(INFO, name="cifar10_cascade", kind="cascade", method="cascade", kappa=None, recipe=recipe)
    card = card_text.render(info, cascade=document)
    assert "Trained with" not in card
    assert "training/train.py" not in card
    command = "add cifar10_cascade --member cifar10_kappa025.v1 --member cifar10_accurate.v1 --gate 2/255"
    assert command in card
    assert "chosen by hand" in card
    assert "only the last stage's own radius is proved at the level `real-sound`" in " ".join(card.split())
    assert "proof about this network" not in card
