"""training/cards.py as a command: --check names what is stale and writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.zoo import empty_zoo, make_data, make_run, plain_figures, snapshot
from training.cards import main
from training.export import export
from training.results.zoo_folder import ZooFolder


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ZooFolder:
    plain_figures(monkeypatch)
    zoo = empty_zoo(tmp_path / "zoo")
    run = make_run(tmp_path / "run")
    export(run, "cifar10_small", zoo=zoo, data_root=str(make_data(tmp_path / "data", run, test=20)))
    return zoo


def test_check_names_what_is_stale_and_writes_nothing(zoo: ZooFolder) -> None:
    def command(*arguments: str):
        return CliRunner().invoke(main, [*arguments, "--root", str(zoo.root)])

    assert command("--check").exit_code == 0
    readme = zoo.root / "README.md"
    readme.write_text("x\n<!-- zoo-table -->\n<!-- /zoo-table -->\n")
    (zoo.cards / "cifar10_small.md").write_text("old")
    (zoo.cards / "figures" / "cifar10_small-dark.svg").unlink()
    before = snapshot(zoo.root)
    stale = command("--check")
    assert stale.exit_code == 1
    assert snapshot(zoo.root) == before
    assert sum(line.startswith("stale") for line in stale.output.splitlines()) == 3
    assert command().exit_code == 0
    assert command("--check").exit_code == 0
    assert "[`cifar10_small`](model_cards/cifar10_small.md)" in readme.read_text()
    assert "[`cifar10_small`](cifar10_small.md)" in (zoo.cards / "README.md").read_text()
