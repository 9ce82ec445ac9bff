"""Other seeds beside a model of the zoo: what is kept, what is refused, and the card's table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from acert_zoo.errors import InvalidInputError
from acert_zoo.zoo import registry
from acert_zoo.zoo.model_info import ModelInfo
from tests.support.zoo import empty_zoo, make_data, make_run, plain_figures, use_registry
from training.evaluate import main
from training.export import export
from training.report.card_metrics import seeds_table
from training.results.evaluation import Evaluation
from training.results.seeds import read_seeds, store_seed
from training.results.zoo_folder import ZooFolder
from training.run.deployment import read_run


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ZooFolder:
    """A zoo with one model, `it`, of seed 0."""
    plain_figures(monkeypatch)
    zoo = empty_zoo(tmp_path / "zoo")
    use_registry(monkeypatch, zoo)
    run = make_run(tmp_path / "run")
    monkeypatch.setenv("ACERT_ZOO_DATA", str(make_data(tmp_path / "data", run)))
    export(run, "it", zoo=zoo)
    return zoo


def model_of(zoo: ZooFolder) -> ModelInfo:
    return registry.read_registry(zoo.registry)[0]


def evaluation(n: int = 40, seed: int = 0) -> Evaluation:
    radius = np.random.default_rng(seed).random(n) * 0.05
    return Evaluation("other", None, "a" * 64, "cifar10", "test", "8.8/255", radius, np.ones(n, bool), n)


def test_the_command_keeps_the_figures_and_the_card_shows_them(zoo: ZooFolder, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", 7)
    options = ["--run", str(other), "--as-seed-of", "it", "--root", str(zoo.root)]
    result = CliRunner().invoke(main, options, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    info = model_of(zoo)
    kept = read_seeds(zoo.seeds("it", 1), info.sha256)
    assert [entry["seed"] for entry in kept] == [7]
    card = (zoo.cards / "it.md").read_text()
    assert "## Another seed" in card
    assert "| 0 (this model) | " in card
    assert seeds_table(info, kept) in card
    assert read_seeds(zoo.seeds("it", 1), "other weights") == []


def test_seeds_are_in_order_and_replaced(zoo: ZooFolder, tmp_path: Path) -> None:
    recipe = read_run(tmp_path / "run")[0].to_dict()
    for seed in (5, 3, 5):
        store_seed(zoo, "it", {**recipe, "seed": seed, "precision": "bfloat16"}, evaluation(seed=seed))
    info = model_of(zoo)
    assert [entry["seed"] for entry in read_seeds(zoo.seeds("it", 1), info.sha256)] == [3, 5]


def test_what_is_not_another_seed_is_refused(zoo: ZooFolder, tmp_path: Path) -> None:
    recipe = read_run(tmp_path / "run")[0].to_dict()
    with pytest.raises(InvalidInputError, match=r"has the seed of it\.v1, 0; expected another"):
        store_seed(zoo, "it", recipe, evaluation())
    with pytest.raises(InvalidInputError, match=r"differs from that of it\.v1 in kappa"):
        store_seed(zoo, "it", {**recipe, "seed": 1, "kappa": 0.5}, evaluation())
    with pytest.raises(InvalidInputError, match="figures of other images than the 30"):
        store_seed(zoo, "it", {**recipe, "seed": 1}, evaluation(30))
    with pytest.raises(InvalidInputError, match="the zoo has no model 'nothing'"):
        store_seed(zoo, "nothing", {**recipe, "seed": 1}, evaluation())
    assert not zoo.seeds("it", 1).exists()
