"""Arrays, labels and weights in every form that people have them, or a reason why not."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from acert_zoo import Cascade, attack, certify
from acert_zoo.data.checks import check_images, check_weights, uncompiled
from acert_zoo.errors import InvalidInputError, UnsoundSettingError
from tests.support.models import small_model

IMAGES = np.linspace(0, 1, 2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)


@pytest.mark.parametrize(
    "array",
    [
        IMAGES[:, :, ::-1, ::-1],
        IMAGES[::-1],
        IMAGES.astype(">f4"),
        np.asfortranarray(IMAGES),
        IMAGES.transpose(0, 1, 3, 2),
        np.repeat(IMAGES, 2, axis=3)[..., ::2],
        np.broadcast_to(IMAGES[:1], IMAGES.shape),
        np.frombuffer(IMAGES.tobytes(), dtype=np.float32).reshape(IMAGES.shape),
    ],
    ids=["mirrored", "reversed", "big-endian", "fortran", "transposed", "strided", "broadcast", "read-only"],
)
def test_pixels_of_any_layout(array: np.ndarray) -> None:
    checked, _ = check_images(array)
    assert checked.dtype == torch.float32
    assert checked.tolist() == array.tolist()


@pytest.mark.parametrize("kind", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i2", ">u4", ">i8"])
def test_labels_of_any_integer_type(kind: str) -> None:
    array = np.array([3, 0, 7, 1], dtype=kind)[::-1][::2]
    images = np.zeros((2, 1, 2, 2), np.float32)
    for labels in (array, list(array), tuple(array.tolist())):
        _, checked = check_images(images, labels, num_classes=8)
        assert checked is not None
        assert (checked.dtype, checked.tolist()) == (torch.int64, [1, 0])
    if kind[0] != ">":
        _, checked = check_images(images, torch.from_numpy(array.copy()))
        assert checked is not None
        assert (checked.dtype, checked.tolist()) == (torch.int64, [1, 0])


@pytest.mark.parametrize(
    "labels",
    [
        np.array([True, False]),
        np.array([0.0, 1.0]),
        ["0", "1"],
        [None, 1],
        [[0], [1, 2]],
        np.array([2**63, 0], dtype=np.uint64),
        torch.tensor([2**63, 0], dtype=torch.uint64),
        [2**70, 0],
        np.ma.masked_array([0, 1], mask=[True, False]),
    ],
)
def test_what_is_no_label(labels: Any) -> None:
    with pytest.raises(InvalidInputError, match="labels"):
        check_images(np.zeros((2, 1, 2, 2), np.float32), labels, num_classes=3)


def test_a_masked_array_of_pixels_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="masked"):
        check_images(np.ma.masked_array(IMAGES, mask=IMAGES > 0.5))


def test_a_tensor_of_inference_mode_becomes_a_plain_one() -> None:
    with torch.inference_mode():
        images = torch.rand(1, 1, 2, 2)
    assert not check_images(images)[0].is_inference()


@pytest.mark.parametrize("rounding", ["float32", "real-sound"])
@pytest.mark.parametrize("change", ["double", "bfloat16", "half", "meta"])
@pytest.mark.parametrize("own", [False, True])
def test_weights_other_than_float32_are_refused(change: str, own: bool, rounding: str) -> None:
    model = small_model(1) if own else nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval()
    model = model.to("meta") if change == "meta" else getattr(model, change)()
    with pytest.raises(InvalidInputError, match=r"float32|meta"):
        certify(model, torch.rand(1, 3, 8, 8), rounding=rounding)


def test_check_weights_names_the_tensor() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    check_weights(model)
    model[1].double()
    with pytest.raises(InvalidInputError, match=r"'1.weight' is torch.float64: model.float\(\)"):
        check_weights(model)


def test_compiled_modules() -> None:
    """The module behind the wrapper is certified, in real arithmetic: a compiled program rounds as it likes."""
    images: Tensor = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval()
    compiled = torch.compile(model, backend="eager")
    assert uncompiled(compiled, "real-sound") is model
    assert uncompiled(model, "float32-deployed") is model
    assert torch.equal(certify(compiled, images).radius, certify(model, images).radius)
    with pytest.raises(UnsoundSettingError, match="compiled program"):
        certify(compiled, images, rounding="float32-deployed")
    model.compile(backend="eager")
    with pytest.raises(UnsoundSettingError, match="compiled program"):
        certify(model, images, rounding="float32-deployed")


def test_a_compiled_model_that_is_not_the_compiled_module_is_refused() -> None:
    """Hooks on the wrapper, a wrapped forward, another function's program, a class of the same name."""
    model, images = small_model(1), torch.rand(1, 3, 8, 8)

    def hooked(compiled: Any) -> None:
        compiled.register_forward_hook(lambda module, inputs, out: -out)

    def wrapped(compiled: Any) -> None:
        forward = compiled.forward
        compiled.forward = functools.wraps(forward)(lambda x: -forward(x))

    def other(compiled: Any) -> None:
        compiled.forward = torch.compile(small_model(2), backend="eager").forward

    for spoil in (hooked, wrapped, other):
        compiled = torch.compile(model, backend="eager")
        spoil(compiled)
        with pytest.raises(InvalidInputError, match="not the module that was compiled"):
            certify(compiled, images)

    class OptimizedModule(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._orig_mod = model

        def forward(self, x: Tensor) -> Tensor:
            return -self._orig_mod(x)

    prediction = certify(OptimizedModule().eval(), images).prediction
    assert torch.equal(prediction, (-model(images)).argmax(1))


@pytest.mark.parametrize(
    "constant", [0.3, [0.3], torch.tensor(0.3), np.array(0.3), torch.full((1, 1, 1, 1), 0.3), np.float32(0.3)]
)
def test_normalisation_constants_of_any_shape(constant: Any) -> None:
    images = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    expected = certify(model, images, mean=[0.1], std=[0.3]).radius
    assert torch.allclose(certify(model, images, mean=[0.1], std=constant).radius, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("constant", ["0.3", None, [0.3, 0.3], torch.tensor(float("nan")), -1, [[]], object()])
def test_what_is_no_normalisation_constant(constant: Any) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    with pytest.raises(InvalidInputError, match="std"):
        certify(model, torch.rand(1, 1, 4, 4), mean=[0.1], std=constant)


@pytest.mark.parametrize(
    "options",
    [
        {"ids": 5},
        {"ids": "ab"},
        {"ids": [1, 2]},
        {"out": 5},
        {"out": "a\0b"},
        {"progress": 3},
        {"batch_size": 2.0},
        {"budget": "3"},
        {"mean": 0.1},
        {"mean": 0.1, "std": 0},
        {"dataset": 5},
        {"split": ""},
    ],
)
def test_mistakes_of_certify_end_in_one_kind_of_error(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    with pytest.raises(InvalidInputError):
        certify(model, torch.rand(2, 1, 4, 4), **options)


@pytest.mark.parametrize(
    "options",
    [{"steps": "a"}, {"steps": 0}, {"restarts": 1.5}, {"seed": "x"}, {"seed": -1}, {"shrink": True}, {"batch_size": 0}],
)
def test_mistakes_of_attack_end_in_one_kind_of_error(options: dict[str, Any]) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    with pytest.raises(InvalidInputError, match=next(iter(options))):
        attack(model, torch.rand(2, 1, 4, 4), [0, 1], 0.1, **options)


@pytest.mark.parametrize("members", [["a", "b"], 5, "ab", [nn.Linear, nn.Linear]])
def test_what_is_no_list_of_members(members: Any) -> None:
    with pytest.raises(InvalidInputError, match="a cascade takes a list of models"):
        Cascade(members, ["1/255"])
