"""Trade-off figures: the same bytes for the same points, our colours, digests, and where points come from.

Also tested here: training/report/figures.py, training/report/figure_style.py, training/report/tradeoff_figure.py,
training/report/certified_figure.py, training/tradeoff.py.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

import acert_zoo
from acert_zoo.errors import InvalidInputError
from tests.support.zoo import empty_zoo, make_data, make_run
from training import tradeoff as command
from training.export import export
from training.report import tradeoff
from training.report.figure_style import THEMES, Point
from training.report.figures import digest, draw
from training.results.zoo_folder import ZooFolder


def point(name: str, method: str, kappa: float | None, acr: float, accuracy: float, dataset: str = "cifar10") -> Point:
    eps = tuple(i / 1000 for i in range(5))
    certified = tuple(accuracy - 10 * i for i in range(5))
    at_eps = (("2/255", accuracy - 20), ("8/255", accuracy - 30))
    return Point(name, dataset, method, kappa, "8.8/255", 1000, accuracy, acr, eps, certified, at_eps)


POINTS = [
    point("cifar10_kappa000", "acert", 0.0, 33.0, 49.0),
    point("cifar10_kappa050", "acert", 0.5, 20.0, 63.0),
    point("cifar10_ibp_kappa050", "ibp", 0.5, 32.0, 45.0),
    point("cifar10_cascade", "cascade", None, 22.0, 72.0),
]


@pytest.mark.parametrize("kind", ["tradeoff", "certified", "rivals-2_255"])
def test_same_points_give_the_same_svg_bytes(kind: str) -> None:
    svg = draw(kind, POINTS, "light", "cifar10_kappa050")
    assert svg == draw(kind, POINTS, "light", "cifar10_kappa050")
    assert digest(kind, POINTS, "light", "cifar10_kappa050").encode() in svg
    assert not re.search(rb"\b20\d\d-\d\d-\d\d", svg)  # no date of drawing
    assert b"<image" not in svg  # all of it is vectors


def test_each_theme_has_its_own_colours_and_pngs_their_size_and_digest() -> None:
    for name, theme in THEMES.items():
        png = draw("tradeoff", POINTS, name, form="png")
        image = Image.open(io.BytesIO(png)).convert("RGB")
        assert image.size == (1440, 936)
        assert "#{:02x}{:02x}{:02x}".format(*image.getpixel((2, 2))) == theme.background
        assert digest("tradeoff", POINTS, name, None).encode() in png


def test_our_curves_are_in_colour_and_the_papers_in_grey() -> None:
    svg = draw("tradeoff", POINTS, "light").decode()
    for method in ("acert", "ibp", "cascade"):
        assert THEMES["light"].colours[method] in svg
    assert THEMES["light"].colours["sabr"] not in svg  # no such model here
    assert svg.count(THEMES["light"].paper) >= 4
    mnist = [point("mnist_kappa000", "acert", 0.0, 80.0, 98.0, dataset="mnist")]
    assert THEMES["light"].paper not in draw("tradeoff", mnist, "light").decode()  # the paper has no such figure


def test_the_digest_names_everything_that_is_shown() -> None:
    base = digest("tradeoff", POINTS, "light", None)
    moved = [*POINTS[:-1], point("cifar10_cascade", "cascade", None, 22.1, 72.0)]
    others = [
        digest("certified", POINTS, "light", None),
        digest("tradeoff", POINTS, "dark", None),
        digest("tradeoff", POINTS, "light", "cifar10_kappa000"),
        digest("tradeoff", moved, "light", None),
    ]
    assert len({base, *others}) == 5


def test_only_stale_figures_are_drawn(tmp_path: Path) -> None:
    def render(points: list[Point], **options: bool) -> list[str]:
        return [p.name for p in tradeoff.render(tmp_path, "it", "tradeoff", points, forms=("svg",), **options)]

    assert render(POINTS, check=True) == ["it-light.svg", "it-dark.svg"]
    assert not list(tmp_path.iterdir())
    assert render(POINTS) == ["it-light.svg", "it-dark.svg"]
    assert render(POINTS) == []
    assert render(POINTS[:2], check=True) == ["it-light.svg", "it-dark.svg"]


def test_every_model_of_a_data_set_is_in_its_figures() -> None:
    points = {p.name: p for p in tradeoff.registry_points(ZooFolder())["mnist"]}
    assert {"mnist_accurate", "mnist_kappa000"} <= points.keys()
    smaller = points["mnist_eps015_kappa000"]
    info = acert_zoo.model_info("mnist_eps015_kappa000")
    assert (smaller.eps_max, smaller.trained_eps) == ("0.4", "0.15")
    assert info.metric("certified_accuracy").eps is not None
    assert smaller.acr_percent == pytest.approx(100 * info.metric("acr").value / 0.4, abs=1e-6)
    assert smaller.acr_percent <= 100 * info.metric("acr").value / 0.4


def test_an_acr_that_a_larger_radius_might_cut_off_is_left_out() -> None:
    info = acert_zoo.model_info("mnist_kappa000")
    assert tradeoff.acr_percent_of(info, "0.4") == info.metric("acr_percent").value
    assert tradeoff.acr_percent_of(info, "0.5") is None  # radii up to 0.5 are not counted apart


@pytest.mark.slow
def test_points_come_from_registry_or_from_evaluated_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run_a")
    root = str(make_data(tmp_path / "data", run, test=20))
    with pytest.raises(InvalidInputError, match="evaluate the run first"):
        tradeoff.run_point(run)
    zoo = empty_zoo(tmp_path / "zoo")
    assert tradeoff.registry_points(zoo) == {}
    with monkeypatch.context() as patch:
        patch.setattr(tradeoff, "draw", lambda *a: b"")
        info = export(run, "cifar10_small", zoo=zoo, data_root=root).info
    (registered,) = tradeoff.registry_points(zoo)["cifar10"]
    assert (registered.name, registered.n, registered.kappa) == ("cifar10_small", 20, 0.25)
    assert registered.accuracy == info.metric("accuracy").value
    assert registered.curve_certified[0] == registered.accuracy
    stored = json.loads(zoo.evaluation("cifar10_small", 1).read_text())
    (run / "evaluation.json").write_text(json.dumps(stored))
    of_run = tradeoff.run_point(run)
    assert (of_run.name, of_run.acr_percent) == ("run_a", registered.acr_percent)
    out = tmp_path / "figures"
    result = CliRunner().invoke(command.main, [str(run), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in out.iterdir()) == sorted(
        f"{kind}-cifar10-{theme}.{form}"
        for kind in ("tradeoff", "certified", "rivals-2_255", "rivals-8_255")
        for theme in THEMES
        for form in tradeoff.FORMS
    )
    empty = CliRunner().invoke(command.main, ["--root", str(empty_zoo(tmp_path / "none").root)])
    assert empty.exit_code == 2
    assert "no evaluated model" in empty.output


def test_the_picture_tag_serves_both_schemes() -> None:
    text = tradeoff.picture("docs/figures/it", "what it shows")
    assert '(prefers-color-scheme: dark)" srcset="docs/figures/it-dark.svg"' in text
    assert 'alt="what it shows" src="docs/figures/it-light.svg"' in text
