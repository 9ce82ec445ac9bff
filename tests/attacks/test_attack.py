"""The adversary: attacks that find what is there, successes that count only where our own code agrees.

Also tested here: attacks/adversarial_check.py, attacks/autoattack.py.
"""

from __future__ import annotations

import builtins
import math
from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from acert_zoo import attack, certify
from acert_zoo.attacks.attack import attack_certificates, refuse_refuted
from acert_zoo.attacks.exact_box import parse_radii
from acert_zoo.errors import (
    InvalidInputError,
    MissingDependencyError,
    RefutedCertificateError,
    UnknownNameError,
    UnsoundSettingError,
)
from tests.support.attack import lively_model, random_images


@dataclass
class Claim:
    """As much of `Certificates` as the adversary reads."""

    radius: Tensor
    label: Tensor
    rounding: str = "real-sound"


def linear(weights: list[float], bias: float = 0.0) -> nn.Module:
    """Two logits: f_0 = w x + b, f_1 = 0, on 1 x 1 x len(w) images."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(len(weights), 2)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([weights, [0.0] * len(weights)]))
        model[1].bias.copy_(torch.tensor([bias, 0.0]))
    return model


def pixels(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 1, -1)


def exact_distance(a: Tensor, b: Tensor) -> Fraction:
    pairs = zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)
    return max(abs(Fraction(p) - Fraction(q)) for p, q in pairs)


def test_radii_are_rounded_down_and_checked():
    assert Fraction(parse_radii("2/255", 3)[0].item()) <= Fraction(2, 255)
    assert parse_radii(torch.tensor([0.1, 0.2]), 2).tolist() == torch.tensor([0.1, 0.2]).double().tolist()
    for bad in (torch.tensor([-1.0, 0.1]), torch.tensor([math.nan, 0.1]), torch.tensor([0.1, 0.2, 0.3])):
        with pytest.raises(InvalidInputError):
            parse_radii(bad, 2)


def test_finds_the_true_radius_of_a_linear_model():
    model, image = linear([1.0, -2.0], -0.1), pixels(0.7, 0.2)  # margin 0.2, falls by 3 eps: true radius 1/15
    found = attack(model, image, torch.tensor([0]), "0.2", shrink=20)
    assert found.radius.item() == pytest.approx(1 / 15, rel=1e-3)
    assert found.radius.item() >= 0.2 / 3 - 1e-7
    assert found.prediction.tolist() == [1]
    assert Fraction(found.radius.item()) >= exact_distance(found.adversarial, image)
    below = attack(model, image, torch.tensor([0]), "0.066")
    assert not below.success.any()
    assert torch.equal(below.adversarial, image)
    assert below.attack == [""]


def test_misclassified_images_have_radius_zero():
    found = attack(linear([1.0]), pixels(0.5), torch.tensor([1]), "0.1")
    assert found.radius.tolist() == [0.0]
    assert found.prediction.tolist() == [0]


def test_success_in_float32_alone_counts_only_where_the_program_is_asked_for():
    class Rounds(nn.Module):
        """Answers 1 in float32 and 0 in float64."""

        def forward(self, x: Tensor) -> Tensor:
            zero = x.flatten(1).sum(1, keepdim=True) * 0
            other = 1.0 if x.dtype == torch.float32 else -1.0
            return torch.cat([zero, zero + other], 1)

    image = pixels(0.5)
    assert not attack(Rounds().eval(), image, torch.tensor([0]), "0.1", restarts=1).success.any()
    assert attack(Rounds().eval(), image, torch.tensor([0]), "0.1", restarts=1, program=True).radius.tolist() == [0.0]


def test_per_image_radii_and_empty_batches():
    model, images = linear([1.0], -0.5), pixels(0.6, 0.8).view(2, 1, 1, 1)
    found = attack(model, images, torch.tensor([0, 0]), torch.tensor([0.2, 0.2]))
    assert found.success.tolist() == [True, False]
    empty = attack(model, images[:0], torch.zeros(0, dtype=torch.int64), "0.1")
    assert len(empty.radius) == 0


def test_bad_arguments_are_refused():
    model, image, label = linear([1.0]), pixels(0.5), torch.tensor([0])
    with pytest.raises(UnknownNameError, match="pdg"):
        attack(model, image, label, "0.1", method="pdg")
    with pytest.raises(InvalidInputError):
        attack(model, image, label, "-0.1")
    with pytest.raises(InvalidInputError):
        attack(model, image + 1, label, "0.1")
    with pytest.raises(InvalidInputError):
        attack(model, image, label, "0.1", steps=0)
    with pytest.raises(UnsoundSettingError):
        attack(model.train(), image, label, "0.1")


def test_the_ensemble_finds_a_nearer_attack_per_image_and_obeys_each_box():
    pytest.importorskip("pyautoattack")
    model, images = lively_model(), random_images(6, 1)
    labels = model(images).argmax(1)
    eps = torch.tensor([0.0, 1e-4, 0.02, 0.05, 0.1, 0.3], dtype=torch.float64)
    found = attack(model, images, labels, eps, method="autoattack", iterations=10, queries=50)
    assert found.success.any()
    assert bool((found.radius[found.success] <= eps[found.success]).all())
    for i in found.success.nonzero().flatten().tolist():
        assert exact_distance(found.adversarial[i], images[i]) <= Fraction(eps[i].item())
        assert found.attack[i] == "autoattack"


def test_without_the_library_the_error_has_the_install_command(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("pyautoattack"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependencyError, match="pip install pyautoattack"):
        attack(linear([1.0, 1.0]), pixels(0.9, 0.9), torch.tensor([0]), "0.1", method="autoattack")


def test_certificates_are_never_refuted_and_the_gap_is_reported():
    model, images = lively_model(), random_images(12, 2)
    certificates = certify(model, images)
    report = attack_certificates(model, images, certificates, steps=5, restarts=2, shrink=3)
    assert bool((report.gap >= 0).all())
    assert bool((report.attacked >= certificates.radius).all())
    assert report.result.success.any()
    finite = report.result.success
    assert torch.equal(report.gap[finite], (report.attacked - certificates.radius)[finite])
    table = report.to_dict()
    assert [a is None for a in table["attacked"]] == (~finite).tolist()


def test_a_false_certificate_is_refuted_loudly():
    model, image = linear([1.0, -2.0], -0.1), pixels(0.7, 0.2)
    claim = Claim(torch.tensor([0.0668], dtype=torch.float64), torch.tensor([0]))  # the true radius is 0.0666...
    with pytest.raises(RefutedCertificateError, match="1 certificates are REFUTED"):
        attack_certificates(model, image, claim)
    just = Claim(torch.tensor([0.0666], dtype=torch.float64), torch.tensor([0]))
    assert attack_certificates(model, image, just, shrink=10).gap.item() < 0.001


def test_refutation_counts_the_closed_ball_and_no_empty_claims():
    radii = torch.tensor([0.0, 0.1], dtype=torch.float64)
    refuse_refuted(radii, torch.tensor([0.0, math.nextafter(0.1, 1)], dtype=torch.float64))
    with pytest.raises(RefutedCertificateError):
        refuse_refuted(radii, torch.tensor([0.0, 0.1], dtype=torch.float64))
