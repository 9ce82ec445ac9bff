"""`acert-zoo certify`: what it certifies, what it says, and what it refuses.

Also tested here: cli/inputs.py, cli/input_images.py, cli/image_files.py, cli/report.py.
"""

from __future__ import annotations

import importlib
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import acert_zoo
from acert_zoo import Certificates
from acert_zoo.cli.numbers import radius
from acert_zoo.data.datasets import to_pixels
from acert_zoo.data.samples import sample_arrays
from acert_zoo.errors import RefutedCertificateError
from acert_zoo.rounding import SELECTABLE_LEVELS, BoundMethod
from tests.support.cli import cifar_model, command, environment, make_data, make_zoo, refused, run


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return make_zoo(tmp_path, monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three of the bundled images as PNG files."""
    images, _ = sample_arrays("cifar10", 3)
    target = tmp_path / "pictures"
    target.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(target / f"{i}.png")
    return target


def test_with_no_data_named_the_bundled_images_are_certified(zoo: str) -> None:
    document = json.loads(run("certify", "--model", zoo, "--json").stdout)
    expected = acert_zoo.certify(cifar_model(), *acert_zoo.sample_data("cifar10"))
    assert [image["radius"] for image in document["images"]] == expected.radius.tolist()
    assert document["acr"] == expected.acr
    assert document["rounding"] == "real-sound"
    assert (document["dataset"], document["split"]) == ("cifar10", "samples")
    assert [claim["eps"] for claim in document["claims"]] == ["2/255", "8/255"]
    assert expected.acr > 0


def test_the_report_for_people(zoo: str) -> None:
    text = run("certify", "--model", zoo).stdout
    expected = acert_zoo.certify(cifar_model(), *acert_zoo.sample_data("cifar10"))
    assert text.startswith(f"{zoo}.v1  (cifar10, trained by acert with kappa 0.25)\n")
    correct = int(expected.correct.sum())
    for line in (
        "images              100 bundled cifar10 test images",
        f"accuracy            {correct}.00 %  ({correct} of 100)",
        f"ACR                 {radius(expected.acr)}",
        f"certified at 2/255  {int(expected.certified('2/255').sum())}.00 %",
        "rounding            real-sound: proved for real arithmetic with the stored weights",
        "... and 90 more",
    ):
        assert line in text
    first = next(i for i in range(10) if expected.correct[i])
    assert any(
        line.split()[0] == str(first) and radius(expected.radius[first].item()) in line
        for line in text.splitlines()[-11:-1]
    )


def test_image_files_certify_the_prediction_and_with_labels_the_label(zoo: str, folder: Path) -> None:
    document = json.loads(run("certify", "--model", zoo, "--json", folder).stdout)
    expected = acert_zoo.certify(cifar_model(), acert_zoo.sample_data("cifar10", 3)[0])
    assert document["certifies"] == "prediction"
    assert [image["id"] for image in document["images"]] == [str(folder / f"{i}.png") for i in range(3)]
    assert [image["radius"] for image in document["images"]] == expected.radius.tolist()
    predicted = int(expected.prediction[0])
    wrong = (int(expected.prediction[1]) + 1) % 10
    document = json.loads(run("certify", "--model", zoo, "--json", "--labels", f"{predicted},{wrong},0", folder).stdout)
    assert [image["label"] for image in document["images"]] == [predicted, wrong, 0]
    # Another batch may end its search a last digit elsewhere.
    assert document["images"][0]["radius"] == pytest.approx(expected.radius[0].item(), rel=1e-5)
    assert document["images"][0]["radius"] > 0
    assert document["images"][1]["radius"] == 0
    (folder / "labels.txt").write_text("1\n2\n3\n")
    text = run("certify", "--model", zoo, "--labels", folder / "labels.txt", folder).stdout
    assert "1 automobile" in text
    assert "accuracy" in text
    assert "accuracy" not in run("certify", "--model", zoo, folder).stdout


def test_a_data_set_from_its_folder(zoo: str, tmp_path: Path) -> None:
    images, labels = make_data(tmp_path / "data")
    root = ("--data", "cifar10", "--data-root", tmp_path / "data")
    document = json.loads(run("certify", "--model", zoo, "--json", *root, "--limit", "5").stdout)
    expected = acert_zoo.certify(cifar_model(), to_pixels(images[:5]), torch.from_numpy(labels[:5]))
    assert [image["radius"] for image in document["images"]] == expected.radius.tolist()
    assert [image["label"] for image in document["images"]] == labels[:5].tolist()
    nothing = run("certify", "--model", zoo, *root, "--limit", "0")
    assert nothing.exit_code == 0
    assert "0 cifar10 test images" in nothing.stdout


def test_a_model_by_folder(zoo: str, tmp_path: Path) -> None:
    cifar_model().save_pretrained(tmp_path / "mine")
    by_folder, by_name = (
        json.loads(run("certify", "--model", m, "--limit", "4", "--json").stdout) for m in (tmp_path / "mine", zoo)
    )
    assert [i["radius"] for i in by_folder["images"]] == [i["radius"] for i in by_name["images"]]


def test_fail_under_holds_exactly_at_the_share_and_fails_above_it(zoo: str) -> None:
    expected = acert_zoo.certify(cifar_model(), *acert_zoo.sample_data("cifar10"))
    certified = int((expected.radius >= 1e-4).sum())
    assert 0 < certified < 100
    run_at = ("certify", "--model", zoo, "--eps", "1e-4", "--fail-under")
    assert run(*run_at, f"{certified}%").exit_code == 0
    missed = run(*run_at, f"{certified + 1}%")
    assert missed.exit_code == 1
    assert f"UNDER THE ASKED {certified + 1}.00 %" in missed.stdout
    document = json.loads(run(*run_at, f"{certified + 1}%", "--json").stdout)
    assert document["claims"] == [
        {"eps": "1e-4", "certified": certified, "least": (certified + 1) / 100, "holds": False}
    ]


def test_saving_and_continuing(zoo: str, tmp_path: Path) -> None:
    out = tmp_path / "saved.jsonl"
    assert run("certify", "--model", zoo, "--limit", "6", "--out", out).exit_code == 0
    first = out.read_text().splitlines()[1:]
    assert run("certify", "--model", zoo, "--limit", "8", "--out", out).exit_code == 0
    assert out.read_text().splitlines()[1:7] == first
    assert len(Certificates.load(out)) == 8


def test_rounding_levels_and_methods_reach_the_result(zoo: str) -> None:
    arguments = ("certify", "--model", zoo, "--limit", "20", "--json", "--threads", "1", "--batch-size", "3")
    document = json.loads(run(*arguments, "--rounding", "float32-deployed").stdout)
    assert document["rounding"] == "float32-deployed"
    sound = json.loads(run(*arguments).stdout)
    pairs = list(zip(document["images"], sound["images"], strict=True))
    assert all(a["radius"] <= b["radius"] for a, b in pairs)
    assert any(a["radius"] > 0 for a, _ in pairs)


def test_attacked_radii_stand_above_the_certified_ones(zoo: str) -> None:
    document = json.loads(run("certify", "--model", zoo, "--limit", "20", "--attack", "--json").stdout)
    pairs = list(zip(document["attack"]["certified"], document["attack"]["attacked"], strict=True))
    assert any(certified > 0 for certified, _ in pairs)
    assert all(attacked is None or attacked > certified for certified, attacked in pairs if certified > 0)
    assert "attacked radius" in run("certify", "--model", zoo, "--limit", "20", "--attack").stdout


def test_a_refuted_certificate_is_exit_code_1(zoo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refute(*_: object) -> None:
        raise RefutedCertificateError("image 2 is REFUTED")

    monkeypatch.setattr("acert_zoo.attacks.attack.attack_certificates", refute)
    result = run("certify", "--model", zoo, "--limit", "2", "--attack")
    assert result.exit_code == 1
    assert "REFUTED" in result.stderr


def test_bad_input_is_refused(zoo: str, folder: Path, tmp_path: Path) -> None:
    model = ("certify", "--model", zoo)
    refused("did you mean tiny_kappa025", "certify", "--model", "tiny_kappa25")
    refused("Name one model", "certify")
    refused("Name one model", *model, "--onnx", "x.onnx")
    for eps in ("-0.1", "nan", "abc", "2/0"):
        refused(f"eps '{eps}'", *model, "--eps", eps)
    refused("for 2 grey levels of 255 write '2/255'", *model, "--eps", "2")
    refused("--fail-under needs --eps", *model, "--fail-under", "40%")
    refused("such as 40%", *model, "--eps", "0.1", "--fail-under", "40")
    refused("unknown data set 'cifar'", *model, "--data", "cifar", "--data-root", tmp_path)
    refused("cifar10", *model, "--data", "cifar10", "--data-root", tmp_path / "nothing")
    refused("not both", *model, "--data", "cifar10", folder)
    refused("data sets bring their own", *model, "--labels", "3")
    refused("--resize is for image files", *model, "--resize")
    refused("--split is for --data", *model, "--split", "train")
    refused("--data-root is for --data", *model, "--data-root", tmp_path)
    for budget in ("0", "-1", "nan"):
        refused(f"budget {float(budget)!r}", *model, "--method", "crown-ibp", "--budget", budget)
    refused("2 labels for 3 images", *model, "--labels", "1,2", folder)
    refused("'two' is not a label", *model, "--labels", "1,two,3", folder)
    refused("label 10", *model, "--labels", "1,2,10", folder)
    refused("does not exist", *model, tmp_path / "missing.png")
    refused("0 to 100", *model, "--limit", "101")
    refused("--threads", *model, "--threads", "0")


def test_folders_named_like_classes_label_their_images(zoo: str, tmp_path: Path) -> None:
    images, _ = sample_arrays("cifar10", 3)
    for image, name in zip(images, ("cat/0.png", "Dog/1.png", "airplane/deep/2.png"), strict=True):
        (tmp_path / "root" / name).parent.mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / "root" / name)
    document = json.loads(run("certify", "--model", zoo, "--json", tmp_path / "root").stdout)
    assert document["certifies"] == "label"
    found = {Path(image["id"]).name: (image["label"], image["label_name"]) for image in document["images"]}
    assert found == {"0.png": (3, "cat"), "1.png": (5, "dog"), "2.png": (0, "airplane")}
    text = run("certify", "--model", zoo, "--labels", "1,1,1", tmp_path / "root").stdout
    assert text.count("1 automobile") >= 3
    (tmp_path / "root" / "cat").rename(tmp_path / "root" / "catt")
    refused("did you mean cat", "certify", "--model", zoo, tmp_path / "root")


def test_files_that_cannot_be_used_are_all_named_or_left_out(zoo: str, folder: Path) -> None:
    (folder / "torn.png").write_bytes(b"torn")
    Image.fromarray(np.zeros((50, 40, 3), dtype=np.uint8)).save(folder / "wide.png")
    for name in ("torn.png", "wide.png"):
        refused(name, "certify", "--model", zoo, folder)
    kept = run("certify", "--model", zoo, "--skip-unreadable", folder)
    assert kept.exit_code == 0
    assert "3 image files" in kept.stdout
    assert all(part in kept.stderr for part in ("left out 2 of 5 files", "torn.png", "wide.png"))
    document = json.loads(run("certify", "--model", zoo, "--skip-unreadable", "--json", folder).stdout)
    assert len(document["images"]) == 3
    assert "torn.png" in document["notes"][0]
    stretched = run("certify", "--model", zoo, "--skip-unreadable", "--resize", folder)
    assert "changed the aspect ratio of 1 of 4 images" in stretched.stderr


def test_a_label_file_of_an_editor_on_windows(zoo: str, folder: Path) -> None:
    (folder / "labels.txt").write_bytes(b"\xef\xbb\xbf1\r\n2\r\n3\r\n")
    document = json.loads(run("certify", "--model", zoo, "--json", "--labels", folder / "labels.txt", folder).stdout)
    assert [image["label"] for image in document["images"]] == [1, 2, 3]


def test_a_wrong_size_says_the_right_one_and_resize_repairs_it(zoo: str, folder: Path) -> None:
    Image.fromarray(np.zeros((50, 40, 3), dtype=np.uint8)).save(folder / "big.png")
    refused("the model takes 32x32", "certify", "--model", zoo, folder / "big.png")
    assert run("certify", "--model", zoo, "--resize", folder / "big.png").exit_code == 0


def test_an_unusable_output_file_is_found_before_the_model_is_even_looked_up(zoo: str, tmp_path: Path) -> None:
    unknown = ("certify", "--model", "no_such_model", "--out")
    refused("does not exist", *unknown, tmp_path / "missing" / "out.jsonl")
    refused("is a folder", *unknown, tmp_path)
    (tmp_path / "other.jsonl").write_text("not ours\n")
    refused("name another one", "certify", "--model", zoo, "--limit", "2", "--out", tmp_path / "other.jsonl")
    assert (tmp_path / "other.jsonl").read_text() == "not ours\n"


def test_altered_weights_are_refused_and_left(zoo: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "tiny.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    refused("sha256", "certify", "--model", zoo)
    assert path.read_bytes() == content


def test_the_choices_offered_are_those_of_the_library() -> None:
    shown = run("certify", "--help").output
    for choice in (*BoundMethod, *SELECTABLE_LEVELS):
        assert choice.value in shown
    assert "float64" not in shown  # recorded, never asked for


def test_one_image_costs_no_heavy_import(tmp_path: Path) -> None:
    cifar_model().save_pretrained(tmp_path)
    code = (
        "import sys; from acert_zoo.cli import main\n"
        f"try: main(['certify', '--model', {str(tmp_path)!r}, '--limit', '1'])\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "heavy = {'torchvision', 'huggingface_hub', 'auto_LiRPA', 'onnx', 'matplotlib', 'scipy', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    process = [command()[0], "-c", code]
    done = subprocess.run(process, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr


def test_why_proofs_stay_on_the_cpu_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say = importlib.import_module("acert_zoo.cli.certify")._say_where_proofs_run
    say("cpu")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("acert_zoo.bounds.search_device.search_device", lambda name: torch.device("meta"))
    say("cuda")
    assert capsys.readouterr().err.startswith("Proofs run on the CPU: float64 arithmetic of meta is not known here")
