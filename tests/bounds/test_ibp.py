"""Interval propagation: by hand, as properties, and against auto-LiRPA's interval bounds for every architecture."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import acert_zoo
from acert_zoo.bounds import auto_lirpa_compat
from acert_zoo.bounds.ibp import Interval, input_box, margin_bounds, propagate, robust_margin, smallest_margin
from acert_zoo.network import architectures
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Add, AvgPool, Flatten, Linear, MaxPool, Normalize, ReLU
from acert_zoo.network.tracing import trace


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def test_the_input_box_is_cut_with_the_unit_cube():
    box = input_box(tensor(0.1, 0.5, 0.95).view(1, 1, 1, 3), 0.2)
    assert torch.allclose(box.lower.flatten(), tensor(0, 0.3, 0.75))
    assert torch.allclose(box.upper.flatten(), tensor(0.3, 0.7, 1))


def test_each_image_has_its_own_radius():
    box = input_box(torch.full((2, 1, 1, 1), 0.5), torch.tensor([0.1, 0.25]))
    assert torch.allclose(box.upper.flatten(), tensor(0.6, 0.75))


def test_an_affine_layer_by_hand():
    """z = x_0 - 2 x_1 + 1 on [0, 1] x [1, 3]: centre 0.5 - 4 + 1 = -2.5, half-width 0.5 + 2 = 2.5."""
    layer = Linear(inputs=(0,), weight=tensor(1, -2).view(1, 2), bias=tensor(1))
    head = Linear(inputs=(1,), weight=torch.eye(1), bias=tensor(0))
    hidden = propagate(Network((layer, head)), Interval(tensor(0, 1).view(1, 2), tensor(1, 3).view(1, 2)))
    assert (hidden.lower.item(), hidden.upper.item()) == (-5.0, 0.0)


@pytest.mark.parametrize(
    ("step", "lower", "upper"),
    [
        (ReLU(inputs=(0,)), [0, 0, 1, 2], [0.5, 0, 2, 4]),
        (
            Normalize(inputs=(0,), mean=torch.tensor([1.0]), std=torch.tensor([2.0])),
            [-1, -1.5, 0, 0.5],
            [-0.25, -1, 0.5, 1.5],
        ),
        (MaxPool(inputs=(0,), kernel_size=(2, 2), stride=(2, 2)), [2], [4]),
        (AvgPool(inputs=(0,), kernel_size=(2, 2), stride=(2, 2)), [0.0], [1.375]),
        (Add(inputs=(0, 0)), [-2, -4, 2, 4], [1, -2, 4, 8]),
    ],
)  # fmt: skip
def test_monotone_steps_by_hand(step, lower, upper):
    """On [-1, 0.5], [-2, -1], [1, 2], [2, 4]."""
    ends = tensor(-1, -2, 1, 2), tensor(0.5, -1, 2, 4)
    size = len(lower)
    steps = (step, Flatten(inputs=(1,)), Linear(inputs=(2,), weight=torch.eye(size), bias=torch.zeros(size)))
    hidden = propagate(Network(steps), Interval(*(t.view(1, 1, 2, 2) for t in ends)))
    assert hidden.lower.flatten().tolist() == pytest.approx(lower)
    assert hidden.upper.flatten().tolist() == pytest.approx(upper)


def test_the_last_layer_is_elided():
    """f_0 = h + 1, f_1 = h on h in [0, 5]: bounding both logits loses 5, bounding f_0 - f_1 = 1 loses nothing."""
    head = Linear(inputs=(0,), weight=tensor(1, 1).view(2, 1), bias=tensor(1, 0))
    hidden = Interval(tensor(0).view(1, 1), tensor(5).view(1, 1))
    assert margin_bounds(head, hidden, torch.tensor([0])).tolist() == [[0.0, 1.0]]
    assert margin_bounds(head, hidden, torch.tensor([1])).tolist() == [[-1.0, 0.0]]


def test_the_smallest_margin_leaves_the_label_out_and_keeps_nan():
    margins = torch.tensor([[0.0, 3.0, 2.0], [1.0, 0.0, torch.nan]])
    smallest = smallest_margin(margins, torch.tensor([0, 1]))
    assert smallest[0] == 2
    assert smallest[1].isnan()


def model_of(arch: str) -> torch.nn.Module:
    """A small network of the architecture with random BatchNorm statistics, in eval mode."""
    common = {"input_shape": (3, 8, 8), "num_classes": 5, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    own = {
        "cnn": {"convs": [(6, 2), (8, 1)], "hidden": 10},
        "cnn7": {"width": 4, "hidden": 12},
        "resnet": {"stem": 4, "blocks": [(6, 2), (6, 1)]},
    }[arch]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = architectures.build(arch, **common, **own, batchnorm=True)
        for module in model.modules():
            if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                torch.nn.init.uniform_(module.weight, -1.0, 1.0)
    return model.eval()


def test_every_architecture_is_tested():
    for arch in architectures.ARCHITECTURES:
        model_of(arch)


@settings(max_examples=15)
@given(st.sampled_from(sorted(architectures.ARCHITECTURES)), st.integers(0, 2**32), st.floats(0, 0.3))
def test_outputs_of_points_of_the_box_lie_in_the_bounds(arch, seed, eps):
    network = trace(model_of(arch)).to(torch.float64)
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(3, 3, 8, 8, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 5, (3,), generator=generator)
    bound = robust_margin(network, images, labels, eps)
    moved = (images + eps * (2 * torch.rand(images.shape, generator=generator, dtype=torch.float64) - 1)).clamp(0, 1)
    logits = network(moved)
    others = logits.scatter(1, labels.unsqueeze(1), -torch.inf).amax(1)
    margins = logits.gather(1, labels.unsqueeze(1)).squeeze(1) - others
    assert bool((bound <= margins + 1e-9).all())


def lirpa_margins(model: torch.nn.Module, images: Tensor, labels: Tensor, eps: float, num_classes: int) -> Tensor:
    """auto-LiRPA's interval bounds [N, K] of f_y - f_t, from the torch module itself and not through our network."""
    library = auto_lirpa_compat.load()
    with auto_lirpa_compat.quiet(), torch.no_grad():
        bounded = library.BoundedModule(model, torch.zeros(1, *images.shape[1:]), device="cpu")
        norm = library.PerturbationLpNorm(
            norm=float("inf"), eps=eps, x_L=(images - eps).clamp(0, 1), x_U=(images + eps).clamp(0, 1)
        )
        identity = torch.eye(num_classes)
        rows = identity[labels].unsqueeze(1) - identity.unsqueeze(0)
        return bounded.compute_bounds(x=(library.BoundedTensor(images, norm),), C=rows, method="IBP")[0]


def assert_agrees(model: torch.nn.Module, images: Tensor, num_classes: int, eps: float) -> None:
    network = trace(model).detach()
    with torch.no_grad():
        labels = network(images).argmax(1)
        ours = margin_bounds(network.head, propagate(network, input_box(images, eps)), labels)
    theirs = lirpa_margins(model, images, labels, eps, num_classes)
    scale = theirs.abs().amax(1, keepdim=True)
    assert bool(((ours - theirs).abs() <= 1e-5 * scale).all())


@pytest.mark.parametrize("arch", sorted(architectures.ARCHITECTURES))
@pytest.mark.parametrize("eps", [1 / 255, 0.1])
def test_auto_lirpa_agrees_on_every_architecture(arch, eps):
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    assert_agrees(model_of(arch), images, 5, eps)


def test_auto_lirpa_agrees_on_every_bundled_model():
    """One model of each bundled architecture (and arguments), on bundled images."""
    seen = set()
    for name in acert_zoo.list_models():
        info = acert_zoo.model_info(name)
        if info.kind != "model" or (info.arch, str(info.arch_kwargs)) in seen:
            continue
        seen.add((info.arch, str(info.arch_kwargs)))
        model = acert_zoo.load_model(name)
        images, _ = acert_zoo.sample_data(info.dataset, n=4)
        assert_agrees(model.classifier, images, model.num_classes, 1 / 255)
