"""Networks with counterexamples planted by construction, which no bound may certify (the idea of SoundnessBench, Zhou
et al. 2024, arXiv 2412.03154): whoever certifies one of them is wrong, however well the counterexample is hidden.

Construction: the margin f_0 - f_1 of a random network is at least c > 0 on the box. One more unit
b(x) = relu(s (x - x*) + delta) is added to f_1 with weight A, where x* is the corner of the box in the direction of the
signs s. On the box s (x - x*) <= 0, so b is 0 but near that corner, where it is delta; A delta outweighs the margin.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import acert_zoo
from acert_zoo import attack, certify
from acert_zoo.attacks.exact_box import attack_box, distance
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.network.tracing import trace
from benchmarks.soundness import NEIGHBOURS, STEPS, Attacked, read_state, run
from tests.support.attack import lively_model, random_images

SIZE = 9  # pixels, a 3 x 3 image


def fractions(t: Tensor) -> list[Fraction]:
    return [Fraction(v) for v in t.flatten().tolist()]


def exact_margin(model: nn.Sequential, image: Tensor) -> Fraction:
    """f_0 - f_1 in rational arithmetic, for Flatten, Linear and ReLU layers."""
    values = fractions(image)
    for layer in model:
        if isinstance(layer, nn.Linear):
            rows = [fractions(row) for row in layer.weight]
            values = [
                sum((w * v for w, v in zip(row, values, strict=True)), b)
                for row, b in zip(rows, fractions(layer.bias), strict=True)
            ]
        elif isinstance(layer, nn.ReLU):
            values = [max(v, Fraction(0)) for v in values]
    return values[0] - values[1]


def planted(seed: int, eps: float, delta: float, depth: int, strength: float) -> tuple[nn.Sequential, Tensor, Tensor]:
    """(network, image, counterexample): an MLP whose planted unit has `strength` times the weight that it needs."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(1, 1, 3, 3, generator=generator) * 0.8 + 0.1
    box = attack_box(image, torch.tensor([eps], dtype=torch.float64))
    signs = torch.where(torch.rand(SIZE, generator=generator) < 0.5, -1.0, 1.0)
    corner = torch.where(signs.view(1, 1, 3, 3) > 0, box.upper, box.lower)
    width = 6
    layers: list[nn.Module] = [nn.Flatten()]
    with torch.no_grad():
        for level in range(depth):
            inputs = SIZE if level == 0 else width + 1
            layer = nn.Linear(inputs, width + 1)
            layer.weight.copy_(torch.randn(width + 1, inputs, generator=generator) * 0.1)
            layer.bias.zero_()
            layer.weight[-1] = 0  # the last unit carries the bump through all layers, mixed into no other
            layer.weight[:, -1] *= level == 0
            if level == 0:
                layer.weight[-1] = signs
                layer.bias[-1] = delta - (signs.double() @ corner.flatten().double()).float()
            else:
                layer.weight[-1, -1] = 1.0
            layers += [layer, nn.ReLU()]
        head = nn.Linear(width + 1, 2)
        head.weight.copy_(torch.randn(2, width + 1, generator=generator) * 0.1)
        head.bias.copy_(torch.tensor([2.0, 0.0]))  # the random part is far smaller
        head.weight[:, -1] = torch.tensor([0.0, strength * 4.0 / delta])
        layers.append(head)
    return nn.Sequential(*layers).eval(), image, corner


@settings(max_examples=25)
@given(
    st.integers(0, 10**6),
    st.sampled_from([1e-4, 1 / 255, 8 / 255, 0.09]),
    st.sampled_from([0.5, 0.05]),
    st.integers(1, 4),
)
def test_planted_counterexamples_are_never_certified(seed, eps, share, depth):
    model, image, corner = planted(seed, eps, share * eps, depth, 1.0)
    assert exact_margin(model, image) > 0  # correct on the image itself
    assert exact_margin(model, corner) < 0  # and a counterexample on the corner, beyond doubt
    reach = distance(corner, image)
    for rounding in ("float32", "real-sound", "float32-deployed"):
        certificate = certify(model, image, torch.tensor([0]), rounding=rounding)
        assert certificate.radius.item() < reach.item()
    for level in ("real-sound", "float32-deployed"):
        rigorous = RigorousNetwork(trace(model, (1, 3, 3)).detach(), level)
        assert not rigorous.proves(image, torch.tensor([0]), reach).item()


@pytest.mark.parametrize("depth", [1, 3])
def test_the_same_network_without_the_planted_unit_is_certified(depth):
    model, image, corner = planted(3, 8 / 255, 0.5 * 8 / 255, depth, 0.0)
    certificate = certify(model, image, torch.tensor([0]))
    assert certificate.radius.item() > distance(corner, image).item()


def test_the_planted_corner_is_hidden_from_random_search_but_our_own_judge_sees_it():
    model, image, corner = planted(5, 8 / 255, 0.05 * 8 / 255, 2, 1.0)
    box = attack_box(image, torch.tensor([8 / 255], dtype=torch.float64))
    points = torch.lerp(box.lower, box.upper, torch.rand(5000, 1, 3, 3, generator=torch.Generator().manual_seed(0)))
    assert bool((model(points).argmax(1) == 0).all())
    assert attack(model, corner, torch.tensor([0]), 0.0).radius.tolist() == [0.0]


class TestBenchmark:
    """The small version of benchmarks/soundness.py, on a model of our own."""

    def test_attacked_points_are_counted_and_none_violates(self):
        attacked = Attacked(lively_model(), random_images(16), lively_model()(random_images(16)).argmax(1))
        assert len(attacked.images) > 0
        points, bad = attacked.round(0)
        assert points == len(attacked.images) * (STEPS + 4 + NEIGHBOURS)
        assert bad == 0

    def test_a_radius_that_is_too_large_is_found_out(self):
        attacked = Attacked(lively_model(), random_images(16), lively_model()(random_images(16)).argmax(1))
        attacked.radius *= 10
        assert sum(attacked.round(seed)[1] for seed in range(3)) > 0

    def test_it_resumes_and_stops_at_its_share(self, tmp_path, monkeypatch):
        model, images = lively_model(), random_images(8)
        labels = model(images).argmax(1)
        monkeypatch.setattr(acert_zoo, "load_model", lambda name: model)
        monkeypatch.setattr(acert_zoo, "sample_data", lambda name, n=None: (images, labels))
        state = tmp_path / "state.jsonl"
        options = {"data_root": None, "minutes": 5.0, "rounding": "real-sound"}
        first = run(["small"], 200, 8, state, **options)
        assert sum(r.points for r in first) >= 200
        with state.open("a") as file:
            file.write('{"torn')
        assert run(["small"], 200, 8, state, **options) == first
        more = run(["small"], 2 * sum(r.points for r in first), 8, state, **options)
        assert more[: len(first)] == first
        assert [r.number for r in more] == list(range(len(more)))
        assert read_state(state) == more

    def test_others_take_over_the_share_of_a_model_with_no_certificates(self, tmp_path, monkeypatch):
        model, images = lively_model(), random_images(8)
        right = model(images).argmax(1)
        wrong = lively_model()
        wrong.info = dataclasses.replace(wrong.info, dataset="none")
        labels = {model.info.dataset: right, "none": (right + 1) % model.num_classes}
        monkeypatch.setattr(acert_zoo, "load_model", lambda name: wrong if name == "wrong" else model)
        monkeypatch.setattr(acert_zoo, "sample_data", lambda name, n=None: (images, labels[name]))
        options = {"data_root": None, "minutes": 5.0, "rounding": "real-sound"}
        rounds = run(["wrong", "small"], 600, 8, tmp_path / "state.jsonl", **options)
        assert {r.model for r in rounds} == {"small"}
        assert sum(r.points for r in rounds) >= 600
        assert run(["wrong"], 600, 8, tmp_path / "nothing.jsonl", **options) == []
