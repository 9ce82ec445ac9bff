"""The gallery in a real browser: pages open without complaint, numbers are the package's, everybody can use it.

Also tested here: gallery/build.py, gallery/bundle.py, gallery/pages.py, gallery/image_wall.py, cli/site.py.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import acert_zoo
from acert_zoo.certificates.file import read_file
from acert_zoo.certificates.lines import Header
from acert_zoo.certificates.results import Certificates
from acert_zoo.data.registration import dataset_info
from acert_zoo.gallery.build import CHECKOUT
from acert_zoo.gallery.eps_grid import eps_grid
from acert_zoo.gallery.evaluations import read_evaluation
from tests.gallery.conftest import ATTACKED, DECIDED, MODELS

PAGES = ("index.html", "wall.html", "prove.html", "compare.html", *(f"models/{name}.html" for name in MODELS))
AXE = CHECKOUT / "site" / "node_modules" / "axe-core" / "axe.min.js"
NUMBER_CONTROLS = """
[...document.querySelectorAll('a[href], button, select, input, [tabindex="0"]')]
    .filter(e => e.checkVisibility() && !e.disabled && !(e.type === 'radio' && !e.checked))
    .map((e, i) => (e.dataset.stop = i, i))
"""
SCRIPT_LIMIT = 300_000  # bytes, before a proof is asked for


def ready(page: Any, url: str) -> None:
    page.goto(url)
    page.wait_for_load_state("networkidle")


def expect(locator: Any, text: str) -> None:
    """Waits until the element holds `text` (`page.wait_for_function` needs eval, which the pages forbid)."""
    locator.filter(has_text=text).wait_for()


def assert_accessible(page: Any) -> None:
    """axe-core finds nothing serious in what the page shows now, light or dark."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = page.evaluate("axe.run().then(r => r.violations.map(v => [v.impact, v.id, v.nodes.map(n => n.html)]))")
        assert [v for v in found if v[0] in ("serious", "critical")] == [], scheme


def stored_certificates(name: str) -> Certificates:
    """The stored radii of a model's evaluation as `certify` would have returned them (labels and pixels apart)."""
    info = acert_zoo.model_info(name)
    radius = torch.from_numpy(read_evaluation(CHECKOUT / "evaluations", info).radii)
    n, zeros = len(radius), torch.zeros(len(radius), dtype=torch.int64)
    header = Header(
        package_version="0",
        model=name,
        model_version=info.version,
        weights_sha256=info.sha256,
        network_sha256="0" * 64,
        method="ibp",
        rounding="real-sound",
        certifies="label",
        dataset=info.dataset,
        split="test",
        n=n,
        created="now",
    )
    ids = [str(i) for i in range(n)]
    margin = torch.full((n,), torch.nan, dtype=torch.float64)
    return Certificates(
        header, radius, margin, zeros, zeros, ["ibp"] * n, ["real-sound"] * n, margin, ids, ["0" * 64] * n
    )


@pytest.mark.parametrize("path", PAGES)
def test_a_page_opens_without_complaint_and_is_accessible(page: Any, address: str, path: str) -> None:
    ready(page, address + path)
    assert page.locator("h1").count() == 1
    assert 0 < page.complaints.script_bytes <= SCRIPT_LIMIT
    for width in (390, 1100):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"scrolls sideways at {width}"
    assert_accessible(page)


def test_the_sliders_figures_are_those_of_certificates(page: Any, address: str) -> None:
    ready(page, address + "index.html#mnist")
    certificates = stored_certificates("mnist_kappa000")
    grid = eps_grid(dataset_info("mnist"))
    for stop in (0, 1, 25, 40, 77, 100, 119, 120, 200, grid.last):
        page.locator("#eps").fill(str(stop))
        shown = page.locator('#models [data-name="mnist_kappa000"] td').nth(1)
        eps = grid.text(stop * grid.step)
        expect(page.locator("#eps-value"), eps)
        expected = 100 * certificates.certified_accuracy(eps)
        assert float(shown.inner_text()) == pytest.approx(np.floor(expected * 100 + 1e-6) / 100, abs=1e-9)


def test_what_an_attack_left_is_shown_beside_what_is_certified(page: Any, address: str) -> None:
    radii = read_evaluation(CHECKOUT / "evaluations", acert_zoo.model_info(ATTACKED)).radii[:100]
    attacked = np.where(np.arange(100) % 10 == 0, np.inf, 1.25 * radii)
    grid = eps_grid(dataset_info("mnist"))
    ready(page, address + "index.html#mnist")
    shown = page.locator(f'#models [data-name="{ATTACKED}"] td').nth(3)
    for stop in (40, 120, grid.last):
        page.locator("#eps").fill(str(stop))
        expect(page.locator("#eps-value"), grid.text(stop * grid.step))
        assert float(shown.inner_text()) == (attacked > float(stop * grid.step)).sum()
    assert page.locator("#chart .gap.m-acert").count() == 1
    assert page.locator('#models [data-name="mnist_cascade"] td').nth(3).inner_text() == "–"
    ready(page, f"{address}models/{ATTACKED}.html")
    assert page.locator("#curve .attack").count() == page.locator("#curve .curve-gap").count() == 1
    expect(page.locator("#readout"), "of the first 100, an attack left")


def test_complete_verification_is_shown_beside_interval_bounds(page: Any, address: str) -> None:
    radii = read_evaluation(CHECKOUT / "evaluations", acert_zoo.model_info(DECIDED)).radii[:100]
    certified = int((radii > 2 / 255).sum())
    ready(page, address + "index.html#cifar10")
    shown = page.locator(f'#models [data-name="{DECIDED}"] td').nth(2)
    assert shown.inner_text() == f"{certified + 2}.00"
    hollow = page.locator("#chart a:has(.hollow)")
    assert hollow.count() == 1
    assert f"by any method: {certified + 2}.00\u00a0%" in str(hollow.get_attribute("aria-label"))
    page.get_by_role("button", name="8/255", exact=True).click()
    assert hollow.count() == 0
    page.locator("#note").get_by_role("button", name="2/255", exact=True).first.click()
    assert hollow.count() == 1
    ready(page, f"{address}models/{DECIDED}.html")
    expect(page.locator("#readout"), f"of the first 100, {certified + 2}.00 % by any method")
    table = page.get_by_role("region", name="Complete verification at 2/255")
    assert table.locator("tr.strong").inner_text().split("\t")[:3] == [
        "… or by branch and bound",
        str(certified + 2),
        f"{certified + 2}.00",
    ]
    assert page.locator("#curve .decided").count() == 1


@pytest.mark.parametrize("path", PAGES[:5])
def test_a_page_opened_from_disk_works_or_says_how_to_serve_it(page: Any, site: Path, path: str) -> None:
    page.complaints.address = "file:"
    page.goto((site / path).as_uri())
    if path in ("wall.html", "prove.html"):
        expect(page.locator("#unserved"), "python -m http.server")
    else:
        page.locator("svg.chart").wait_for()


def test_published_results_are_a_table_too(page: Any, address: str) -> None:
    ready(page, address + "index.html#cifar10")
    page.get_by_text("The published results as a table").click()
    rows = page.locator("#published-table tbody tr")
    assert rows.count() == page.locator("#chart .published .dot").count() > 10
    assert rows.locator("a[href^='https://']").count() == rows.count()
    assert_accessible(page)


def test_an_explanation_opens_inside_the_window(page: Any, address: str) -> None:
    ready(page, address + "index.html#cifar10")
    terms = page.locator("main .term")
    for term in (terms.first, terms.last):
        term.scroll_into_view_if_needed()
        term.press("Enter")
        box = page.locator(".explanation:popover-open").bounding_box()
        assert 0 <= box["x"] <= box["x"] + box["width"] <= page.viewport_size["width"]
        assert 0 <= box["y"] <= box["y"] + box["height"] <= page.viewport_size["height"]
        page.keyboard.press("Escape")
        assert page.locator(".explanation:popover-open").count() == 0


def test_the_table_sorts_filters_and_downloads(page: Any, address: str) -> None:
    ready(page, address + "index.html#mnist")
    names = page.locator("#models tbody th")
    page.get_by_role("button", name="natural %").click()
    assert names.all_inner_texts() == ["mnist_cascade", "mnist_kappa000"]  # 98.54 before 97.36
    page.get_by_role("button", name="natural %").click()
    assert names.all_inner_texts() == ["mnist_kappa000", "mnist_cascade"]
    page.locator("#methods input").first.uncheck()
    assert names.count() == 1
    page.locator("#methods input").first.check()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as CSV").click()
    rows = list(csv.DictReader(Path(download.value.path()).read_text(encoding="utf-8").splitlines()))
    assert {row["model"] for row in rows} == {"mnist_kappa000", "mnist_cascade"}
    assert {float(row["natural %"]) for row in rows} == {98.54, 97.36}


@pytest.mark.parametrize("name", ["cifar10_kappa025", "mnist_cascade"])
def test_an_images_detail_is_its_certificate(page: Any, address: str, site: Path, name: str) -> None:
    dataset = name.split("_")[0]
    path = site / "data" / "certificates" / f"{name}.jsonl"
    lines = read_file(path).lines
    texts = path.read_text(encoding="utf-8").splitlines()[1:]
    shown = next(i for i, line in enumerate(lines) if float(line.radius) > 0)
    ready(page, f"{address}wall.html#{dataset}/{name}//{shown}")
    dialog = page.locator("#detail")
    dialog.locator("summary").click()
    assert dialog.locator("#line-0").inner_text() == texts[shown]
    facts = dialog.locator("dl").inner_text()
    assert f"(exactly {lines[shown].radius})" in facts
    assert "would take over first" in facts
    assert dialog.locator("canvas").count() == 3
    assert (dialog.locator("dt", has_text="answered by").count() == 1) == (dataset == "mnist")
    page.keyboard.press("ArrowRight")
    page.get_by_role("heading", name=f"Image {shown + 1}:").wait_for()
    if dataset == "mnist":
        assert_accessible(page)


def test_radii_found_here_are_those_of_float32_ibp(page: Any, address: str, site: Path) -> None:
    images, _ = acert_zoo.sample_data("mnist", 10)
    expected = acert_zoo.certify(acert_zoo.load_model("mnist_kappa000"), images, rounding="float32").radius
    ready(page, address + "prove.html#mnist_kappa000")
    assert page.complaints.script_bytes <= SCRIPT_LIMIT
    page.locator("#load").click()
    found = []
    for i in range(10):
        page.locator("#samples button").nth(i).click()
        found.append(float(page.locator("#radius[data-value]").get_attribute("data-value")))
    assert found == pytest.approx(expected.tolist(), rel=1e-4)
    page.locator("#at-radius").click()
    expect(page.locator("#verdict"), "Every lower bound is above 0")
    page.locator("#eps").press("End")
    expect(page.locator("#verdict"), "Not proved")
    assert_accessible(page)
    page.locator("#source-photo").check(force=True)
    page.locator("#file").set_input_files(CHECKOUT / "README.md")
    expect(page.locator("#status"), "could not be read")
    page.locator("#file").set_input_files(site / "data" / "images" / "mnist.png")
    expect(page.locator("#input-title"), "your photo, its middle scaled to 28 × 28")
    page.locator("#radius[data-value]").wait_for()


def test_a_drawn_digit_gets_an_answer_by_mouse_and_by_keyboard(page: Any, address: str) -> None:
    ready(page, address + "prove.html#mnist_kappa000")
    page.locator("#load").click()
    page.locator("#radius[data-value]").wait_for()
    page.locator("#source-draw").check(force=True)
    box = page.locator("#pad").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 40, steps=6)
    page.mouse.up()
    expect(page.locator("#input-title"), "your digit")
    page.locator("#radius[data-value]").wait_for()
    assert page.locator("#answer").inner_text() == "1"
    page.locator("#pad").focus()
    page.keyboard.press("Delete")
    page.keyboard.press("Space")
    for key in ["ArrowUp"] * 12:
        page.keyboard.press(key)
    page.keyboard.press("Space")
    page.locator("#radius[data-value]").wait_for()
    assert page.locator("#answer").inner_text() == "1"


def test_keys_alone_reach_every_control(page: Any, address: str) -> None:
    for path in ("index.html", "wall.html", "prove.html", "compare.html", f"models/{DECIDED}.html"):
        ready(page, address + path)
        wanted = page.evaluate(NUMBER_CONTROLS)
        seen = set()
        for _ in range(len(wanted) + 5):
            page.keyboard.press("Tab")
            seen.add(page.evaluate("Number(document.activeElement.dataset.stop ?? -1)"))
        assert set(wanted) <= seen, path


def test_keys_alone_open_an_image_and_lead_back(page: Any, address: str) -> None:
    ready(page, address + "wall.html#mnist/mnist_kappa000")
    page.locator('[data-image="3"]').focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Image 3:").wait_for()
    page.keyboard.press("ArrowLeft")
    page.get_by_role("heading", name="Image 2:").wait_for()
    page.keyboard.press("Escape")
    page.locator("#detail").wait_for(state="hidden")
    assert page.evaluate("document.activeElement.dataset.image") == "2"


def test_a_row_of_ones_own_is_shown_and_others_are_refused(page: Any, address: str, tmp_path: Path) -> None:
    ready(page, address + "compare.html")
    tradeoff = page.evaluate("fetch('data/tradeoff.json').then(r => r.json())")
    grid = next(d for d in tradeoff["datasets"] if d["name"] == "mnist")
    row = {
        "format": "acert-zoo-evaluation",
        "schema_version": 1,
        "name": "my_model",
        "dataset": "mnist",
        "accuracy": 90.0,
        "acr": 50.0,
        "n": 10,
        "counts": [9] * (grid["last"] + 1),
        "verifier": "ibp",
        "rounding": "real-sound",
        "parameters": 10,
    }
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(row))
    bad.write_text(json.dumps({**row, "counts": [9]}))
    page.locator("#file").set_input_files(bad)
    expect(page.locator("#problem"), "eps grid")
    page.locator("#file").set_input_files(good)
    page.locator("#chart .own").wait_for()
    ready(page, address + "index.html#mnist")
    assert "my_model" in page.locator("#models").inner_text()
    page.get_by_role("button", name="Forget my own models").click()
    assert "my_model" not in page.locator("#models").inner_text()
