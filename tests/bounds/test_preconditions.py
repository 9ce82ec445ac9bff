"""Every setting and every network for which a rounding level would claim too much is refused, by name."""

from __future__ import annotations

import dataclasses
import platform
import threading

import pytest
import torch
from torch import Tensor, nn

import acert_zoo
from acert_zoo.bounds import preconditions
from acert_zoo.bounds.preconditions import DEPLOYED, REAL_SOUND, check_backend, check_network
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.errors import InvalidInputError, UnknownNameError, UnsoundSettingError, UnsupportedLayerError
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import AvgPool, BatchNorm, Flatten, Linear, Monotone, Normalize, ReLU
from acert_zoo.rounding import proved_level

BOTH = (REAL_SOUND, DEPLOYED)


def network(**first: Tensor) -> Network:
    """Normalize, flatten, linear, ReLU, head on [1, 1, 2] images; fields of the first linear layer can be replaced."""
    layer = Linear(inputs=(2,), weight=torch.ones(2, 2), bias=torch.zeros(2))
    return Network(
        (
            Normalize(inputs=(0,), mean=torch.tensor([0.5]), std=torch.tensor([0.25])),
            Flatten(inputs=(1,)),
            dataclasses.replace(layer, **first),
            ReLU(inputs=(3,)),
            Linear(inputs=(4,), weight=torch.eye(2), bias=torch.zeros(2)),
        )
    )


def with_step(net: Network, index: int, step) -> Network:
    return Network(tuple(step if i == index else s for i, s in enumerate(net.steps)))


@pytest.mark.parametrize("level", BOTH)
def test_an_ordinary_network_and_backend_pass(level):
    check_network(network(), level)
    check_backend(level)


def test_levels():
    with pytest.raises(InvalidInputError, match=r"float32.*proves nothing"):
        proved_level("float32")
    with pytest.raises(UnknownNameError, match="real-sound"):
        proved_level("realsound")
    with pytest.raises(InvalidInputError, match="constant"):
        RigorousNetwork(network(), constant=0.5)


def test_train_mode_is_refused_by_the_name_of_the_module():
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)).eval()
    images = torch.full((1, 1, 1, 2), 0.5)
    assert len(acert_zoo.certify(model, images).radius) == 1
    model[2].train()  # its BatchNorm would use the statistics of the batch
    for level in BOTH:
        with pytest.raises(UnsoundSettingError, match=r"2 is in train mode"):
            acert_zoo.certify(model, images, rounding=level)


@pytest.mark.parametrize("level", BOTH)
def test_other_devices_and_layouts(level):
    """The proof is about float64 arithmetic on the CPU, and float32-deployed about programs that run there."""
    for weight in (torch.ones(2, 2, device="meta"), torch.eye(2).to_sparse()):
        with pytest.raises(UnsoundSettingError, match=r"weight is a .* tensor on .*dense CPU tensors"):
            check_network(network(weight=weight), level)
    images, label = torch.zeros(1, 1, 1, 2, device="meta"), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(InvalidInputError, match="on the CPU"):
        RigorousNetwork(network(), level).margins(images, label, 0.1)


@pytest.mark.parametrize("level", BOTH)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("field", ["weight", "bias"])
def test_not_finite(level, value, field):
    t = torch.ones(2, 2) if field == "weight" else torch.ones(2)
    t[-1] = value
    with pytest.raises(UnsoundSettingError, match=f"{field} holds values that are not finite"):
        check_network(network(**{field: t}), level)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("level", BOTH)
def test_not_float32(level, dtype):
    with pytest.raises(UnsoundSettingError, match="float32"):
        check_network(network(weight=torch.ones(2, 2, dtype=dtype)), level)


def test_subnormal_weights_are_fine_for_real_arithmetic_only():
    for value in (2.0**-149, -(2.0**-127)):
        net = network(weight=torch.full((2, 2), value))
        check_network(net, REAL_SOUND)
        with pytest.raises(UnsoundSettingError, match="subnormal"):
            check_network(net, DEPLOYED)
    check_network(network(weight=torch.full((2, 2), 2.0**-126)), DEPLOYED)  # the smallest normal number
    check_network(network(weight=torch.zeros(2, 2)), DEPLOYED)


@pytest.mark.parametrize("std", [0.0, -1.0])
def test_std_must_be_positive(std):
    bad = Normalize(inputs=(0,), mean=torch.tensor([0.5]), std=torch.tensor([std]))
    with pytest.raises(UnsoundSettingError, match="std must be > 0"):
        check_network(with_step(network(), 0, bad), REAL_SOUND)


def test_batchnorm_statistics_and_level():
    fields = {name: torch.ones(2) for name in ("gamma", "beta", "mean", "var")}
    net = with_step(network(), 3, BatchNorm(inputs=(3,), epsilon=1e-5, **fields))
    check_network(net, REAL_SOUND)
    with pytest.raises(UnsupportedLayerError, match=r"no float32-deployed rule for .*BatchNorm.* folded"):
        check_network(net, DEPLOYED)
    for var, epsilon in ((-1.0, 1e-5), (0.0, 0.0), (1.0, -0.5), (1.0, float("nan"))):
        step = BatchNorm(inputs=(3,), epsilon=epsilon, **fields | {"var": torch.full((2,), var)})
        with pytest.raises(UnsoundSettingError, match="var"):
            check_network(with_step(network(), 3, step), REAL_SOUND)


def test_a_step_without_a_rule_and_a_subclass_of_one_with_a_rule():
    class Sigmoid(Monotone):
        def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return torch.sigmoid(x)

    class Leaky(ReLU):
        def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return torch.nn.functional.leaky_relu(x)

    for kind in (Sigmoid, Leaky):
        with pytest.raises(UnsupportedLayerError, match=kind.__name__):
            check_network(with_step(network(), 3, kind(inputs=(3,))), REAL_SOUND)


def test_too_many_products_per_output():
    window = AvgPool(inputs=(1,), kernel_size=(2**12, 2**11), stride=(1, 1))  # n + 2 > 2^23, (2n + 16)u tiny
    net = with_step(network(), 1, window)
    check_network(net, REAL_SOUND)
    with pytest.raises(UnsoundSettingError, match="too many"):
        check_network(net, DEPLOYED)
    window = AvgPool(inputs=(1,), kernel_size=(2**26, 2**26), stride=(1, 1))  # (2n + 16)u >= 1
    with pytest.raises(UnsoundSettingError, match="too many"):
        check_network(with_step(network(), 1, window), REAL_SOUND)


@pytest.mark.parametrize("level", BOTH)
def test_autocast(level):
    net = RigorousNetwork(network(), level)
    x, y = torch.zeros(1, 1, 1, 2), torch.zeros(1, dtype=torch.int64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for call in (lambda: net.margins(x, y, 0.1), lambda: net.intervals(x, 0.1)):
            with pytest.raises(UnsoundSettingError, match="autocast"):
                call()


@pytest.mark.parametrize("level", BOTH)
def test_flushing_subnormals(level):
    errors = []

    def check() -> None:  # in a thread of its own: the mode belongs to the thread
        if torch.set_flush_denormal(True):
            try:
                check_backend(level)
            except UnsoundSettingError as error:
                errors.append(str(error))
        else:
            errors.append("not supported by this CPU: flushed to zero")

    thread = threading.Thread(target=check)
    thread.start()
    thread.join()
    assert len(errors) == 1
    assert "flushed to zero" in errors[0]


@pytest.mark.parametrize("name", ["ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"])
def test_onednn_math_modes(monkeypatch, name):
    for value in ("STRICT", "strict", ""):
        monkeypatch.setenv(name, value)
        check_backend(DEPLOYED)
    for value in ("BF16", "TF32", "ANY", "F16"):
        monkeypatch.setenv(name, value)
        check_backend(REAL_SOUND)
        with pytest.raises(UnsoundSettingError, match=name):
            check_backend(DEPLOYED)


def test_float32_matmul_precision():
    before = torch.get_float32_matmul_precision()
    try:
        for value in ("high", "medium"):
            torch.set_float32_matmul_precision(value)
            check_backend(REAL_SOUND)
            with pytest.raises(UnsoundSettingError, match=r"matmul|fp32_precision"):
                check_backend(DEPLOYED)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "conv"), reason="this torch has no fp32_precision settings")
@pytest.mark.parametrize("place", ["", "mkldnn", "mkldnn.conv", "mkldnn.matmul"])
@pytest.mark.parametrize("value", ["tf32", "bf16"])
def test_fp32_precision(place, value):
    owner = torch.backends
    for part in filter(None, place.split(".")):
        owner = getattr(owner, part)
    before = owner.fp32_precision
    try:
        owner.fp32_precision = "tf32" if place == "" else value  # there is no generic "bf16"
        check_backend(REAL_SOUND)
        with pytest.raises(UnsoundSettingError, match=r"fp32_precision|matmul"):
            check_backend(DEPLOYED)
    finally:
        owner.fp32_precision = before
    check_backend(DEPLOYED)


def test_nnpack_is_winograd(monkeypatch):
    monkeypatch.setattr(preconditions, "_nnpack_on", lambda: True)
    monkeypatch.setattr(preconditions, "_mkldnn_on", lambda: False)
    check_backend(REAL_SOUND)
    with pytest.raises(UnsoundSettingError, match="NNPACK"):
        check_backend(DEPLOYED)
    monkeypatch.setattr(preconditions, "_nnpack_on", lambda: False)
    check_backend(DEPLOYED)


def test_the_real_switch_of_onednn():
    if not torch.backends.nnpack.is_available():
        pytest.skip("this torch has no NNPACK")
    with torch.backends.mkldnn.flags(enabled=False):
        with pytest.raises(UnsoundSettingError, match="NNPACK"):
            check_backend(DEPLOYED)
        with torch.backends.nnpack.flags(enabled=False):
            check_backend(DEPLOYED)
    check_backend(DEPLOYED)


def test_other_processors(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    check_backend(REAL_SOUND)
    with pytest.raises(UnsoundSettingError, match="x86-64"):
        check_backend(DEPLOYED)
