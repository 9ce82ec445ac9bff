"""`certify`: what it accepts and refuses, what it writes, and going on after an interruption.

Also tested here: certificates/certifiers.py, bounds/certifier.py, bounds/network_certifier.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import acert_zoo
from acert_zoo import certify
from acert_zoo.bounds.network_certifier import NetworkCertifier
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.certificates.results import Certificates
from acert_zoo.data.checks import pixel_sha256
from acert_zoo.errors import (
    AcertZooError,
    InvalidInputError,
    UnknownNameError,
    UnsoundSettingError,
    UnsupportedLayerError,
)
from acert_zoo.network.architectures import Normalize
from acert_zoo.network.tracing import trace
from tests.support.models import small_model

N = 12


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(N, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_with_labels(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    result = certify(model, images, labels)
    assert result.prediction.tolist() == model(images).argmax(1).tolist()
    assert result.label.tolist() == labels.tolist()
    assert result.accuracy == (N - 1) / N
    assert result.radius[3] == 0
    assert (result.radius[torch.arange(N) != 3] > 0).all()
    assert result.method == ["ibp"] * N
    assert result.ids == [str(i) for i in range(N)]
    assert (result.rounding, result.certifies) == ("real-sound", "label")
    assert result.pixel_sha256[0] == pixel_sha256(images[0])
    assert result.model == "small"
    assert result.weights_sha256 == model.weights_sha256


def test_without_labels_the_prediction_is_certified(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    result = certify(model, images)
    assert result.certifies == "prediction"
    assert torch.equal(result.label, model(images).argmax(1))
    assert result.radius[3] > 0
    assert np.isnan(result.accuracy)


def test_every_radius_is_proved_by_a_fresh_rigorous_network(model: nn.Module, images: Tensor) -> None:
    for rounding in ("real-sound", "float32-deployed"):
        result = certify(model, images, rounding=rounding, batch_size=5)
        proof = RigorousNetwork(trace(model), rounding)
        assert proof.proves(images, result.label, result.radius).all()
        assert result.roundings == [rounding] * N


@pytest.mark.parametrize("labelled", [True, False])
def test_no_images(model: nn.Module, labelled: bool) -> None:
    result = certify(model, torch.zeros(0, 3, 8, 8), torch.zeros(0, dtype=torch.int64) if labelled else None)
    assert len(result) == 0
    assert result.to_dict()["images"] == []


def test_numpy_and_lists(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    plain = certify(model, images, labels)
    other = certify(model, images.numpy(), labels.tolist())
    assert torch.equal(plain.radius, other.radius)
    channels_last = images.to(memory_format=torch.channels_last)
    assert certify(model, channels_last, labels.to(torch.uint8)).pixel_sha256 == plain.pixel_sha256


def test_what_holds_images_does_not_change_the_result(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    plain = certify(model, images, labels)
    pairs = TensorDataset(images, labels)
    for held in (pairs, DataLoader(pairs, batch_size=5), list(images)):
        other = certify(model, held, labels if isinstance(held, list) else None)
        assert torch.equal(plain.radius, other.radius)
        assert (other.certifies, other.pixel_sha256) == ("label", plain.pixel_sha256)


def test_a_model_by_its_name() -> None:
    images, labels = acert_zoo.sample_data("mnist", 2)
    result = certify("mnist_kappa000", images, labels)
    assert result.model == "mnist_kappa000"
    assert result.classes == tuple("0123456789")
    assert result.to_dict()["images"][0]["label_name"] == str(int(labels[0]))


def bad(pixel: float) -> Callable[[Tensor], Tensor]:
    def change(images: Tensor) -> Tensor:
        images = images.clone()
        images[2, 0, 0, 0] = pixel
        return images

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (bad(1.0001), "image 2 is outside"),
        (bad(-0.25), "raw pixels"),
        (bad(float("nan")), "image 2 has NaN"),
        (bad(float("inf")), "image 2 has NaN or infinite"),
        (lambda x: x * 255, r"/ 255"),
        (lambda x: (x * 255).to(torch.uint8), r"images.float\(\) / 255"),
        (lambda x: x.double(), r"images.float\(\)"),
        (lambda x: x.half(), r"images.float\(\)"),
        (lambda x: x > 0.5, "floating-point"),
        (lambda x: x[0], "unsqueeze"),
        (lambda x: x.flatten(1), r"\[N, C, H, W\]"),
        (lambda x: x[:, :1], r"\[N, 3, 8, 8\], got \[12, 1, 8, 8\]"),
        (lambda x: x[..., :7], r"\[N, 3, 8, 8\]"),
        (lambda x: x.permute(0, 2, 3, 1), "channels come first"),
        (lambda x: x.tolist(), r"image 0 is a list; expected a tensor or array \[C, H, W\]"),
        (lambda x: None, "NoneType"),
        (lambda x: x.to_sparse(), "dense"),
        (lambda x: x.to("meta"), "meta tensor"),
        (bad(1 + 2**-23), r"range .* to 1\.00000012"),
    ],
)
def test_bad_images(model: nn.Module, images: Tensor, change: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        certify(model, change(images))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": -1}, "budget -1"),
        ({"budget": float("nan")}, "budget nan"),
        ({"budget": "long"}, "budget 'long'"),
        ({"dataset": 3}, "dataset must be a name"),
        ({"split": ""}, "split must be a name"),
        ({"batch_size": 0}, "positive integer"),
    ],
)
def test_bad_options(model: nn.Module, images: Tensor, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        certify(model, images, **options)


def test_slow_methods_save_and_report_every_few_images(
    model: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unimproved(self: NetworkCertifier, images: Tensor, label: Tensor, prediction: Tensor, *found: Any) -> Any:
        return found[:2]

    monkeypatch.setattr(NetworkCertifier, "_improve", unimproved)
    for method, expected in (("ibp", [0, N]), ("crown", [0, 8, N])):
        done: list[int] = []
        certify(model, images, method=method, progress=lambda k, n, done=done: done.append(k))
        assert done == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y[:-1], "shape \\[12\\]"),
        (lambda y: y.unsqueeze(1), "shape \\[12\\]"),
        (lambda y: y.float(), "integers"),
        (lambda y: y > 0, "integers"),
        (lambda y: y.masked_fill(y == y[4], 4), "out of range: the model has classes 0 to 3"),
        (lambda y: y.masked_fill(y == y[4], -1), "out of range"),
        (lambda y: "labels", "got str"),
        (lambda y: [[1], [2, 3]], "cannot be read"),
        (lambda y: ["cat"] * 12, "cannot be read"),
    ],
)
def test_bad_labels(
    model: nn.Module, images: Tensor, labels: Tensor, change: Callable[[Tensor], Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        certify(model, images, change(labels))


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, "8", True])
def test_bad_batch_size(model: nn.Module, images: Tensor, batch_size: Any) -> None:
    with pytest.raises(InvalidInputError, match="batch_size"):
        certify(model, images, batch_size=batch_size)


@pytest.mark.parametrize("ids", [["a"], ["a"] * N, [1] * N, [""] + [str(i) for i in range(N - 1)]])
def test_bad_ids(model: nn.Module, images: Tensor, ids: Any) -> None:
    with pytest.raises(InvalidInputError, match="ids"):
        certify(model, images, ids=ids)


def test_unknown_names(model: nn.Module, images: Tensor) -> None:
    with pytest.raises(UnknownNameError, match="did you mean crown"):
        certify(model, images, method="crow")
    with pytest.raises(UnknownNameError, match="did you mean real-sound"):
        certify(model, images, rounding="real_sound")


def test_models_that_are_refused(images: Tensor) -> None:
    with pytest.raises(UnsoundSettingError, match="eval"):
        certify(small_model().train(), images)
    own = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).train()
    with pytest.raises(UnsoundSettingError, match="eval"):
        certify(own, images)
    with pytest.raises(UnsupportedLayerError, match="GELU"):
        certify(nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.GELU(), nn.Linear(8, 4)).eval(), images)
    with pytest.raises(InvalidInputError, match=r"nn\.Module"):
        certify(None, images)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match=r"did you mean .*mnist_kappa000"):
        certify("mnist_kappa00", images)
    broken = small_model()
    broken.classifier.layers[1].weight.data[0] = float("nan")
    with pytest.raises(UnsoundSettingError, match="not finite"):
        certify(broken, images)
    with pytest.raises(UnsoundSettingError, match="autocast"), torch.autocast("cpu"):
        certify(small_model(), images)


def test_a_module_of_ones_own_with_normalisation_outside(images: Tensor) -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 4)).eval()
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    inside = nn.Sequential(Normalize(mean, std), inner).eval()
    a, b = certify(inner, images, mean=mean, std=std), certify(inside, images)
    assert torch.equal(a.prediction, b.prediction)
    assert torch.allclose(a.radius, b.radius, rtol=1e-5)
    assert a.model is None
    assert a.weights_sha256 is None


def test_memory_is_bounded_by_the_batch(model: nn.Module) -> None:
    """No call sees more images than the batch size, however many there are."""
    images = torch.rand(300, 3, 8, 8)
    from acert_zoo.bounds import radius_search
    from acert_zoo.certificates import certify

    original = radius_search.class_margins
    largest = 0

    def spy(network: Any, x: Tensor, y: Tensor, eps: Any) -> Tensor:
        nonlocal largest
        largest = max(largest, len(x))
        return original(network, x, y, eps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(radius_search, "class_margins", spy)
        certify.certify(model, images, batch_size=16)
    assert 0 < largest <= 16


def test_public_names() -> None:
    assert acert_zoo.certify is certify
    assert acert_zoo.Certificates is Certificates
    assert issubclass(InvalidInputError, AcertZooError)


def test_bundled_models_on_bundled_images() -> None:
    """Real networks on real images: proved radii, and a file that says the same."""
    for name in acert_zoo.list_models():
        net = acert_zoo.load_model(name)
        info = acert_zoo.model_info(name)
        if info.kind != "model":
            continue
        images, labels = acert_zoo.sample_data(info.dataset, 10)
        result = certify(net, images, labels)
        assert json.loads(result.to_json())["model"] == info.name
        proof = RigorousNetwork(trace(net).detach())
        good = result.radius > 0
        assert good.tolist() == (result.correct & good).tolist()
        assert proof.proves(images[good], labels[good], result.radius[good]).all()
