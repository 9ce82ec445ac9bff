"""Cascades in use: the adversary at the gates, certificate files, services, copies, cascade files."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from fractions import Fraction

import pytest
import torch
from torch import Tensor

import acert_zoo
from acert_zoo import Cascade, attack, certify
from acert_zoo.attacks.attack import attack_certificates
from acert_zoo.bounds import certified_prediction
from acert_zoo.certificates.verify import verify_file
from acert_zoo.errors import (
    InvalidInputError,
    UnknownNameError,
    UnsoundSettingError,
    WeightsError,
)
from tests.support.attack import lively_model, random_images
from tests.support.cascade import certified, pixel, threshold


def lively_cascade(images: Tensor) -> Cascade:
    members = [lively_model(0), lively_model(1)]
    return Cascade(members, [float(certify(members[0], images).radius.median())]).eval()


def test_the_adversary_searches_at_the_gates_and_finds_nothing_inside():
    images = random_images(16)
    cascade = lively_cascade(images)
    certificates = certify(cascade, images)
    assert {name for name, _ in cascade.attack_objectives()} == {"gate0-close", "gate0-open"}
    report = attack_certificates(cascade, images, certificates, steps=6, restarts=2, shrink=4)
    assert bool((report.attacked > report.certified).all())
    assert report.result.success.any()


def test_the_adversary_finds_what_lies_behind_a_gate():
    # At 0.33 the first member answers 0 and its gate is open until 0.375; beyond, the second member answers 1.
    cascade = Cascade([threshold(0.5), threshold(0.25)], ["1/8"]).eval()
    found = attack(cascade, pixel(0.33), torch.tensor([0]), "0.1", shrink=12)
    assert 0.045 - 1e-6 <= found.radius.item() < 0.046


def test_files_of_certificates_verify_and_false_ones_do_not(tmp_path):
    images = random_images(8)
    cascade = lively_cascade(images)
    result = certify(cascade, images)
    result.save(tmp_path / "good.jsonl")
    assert verify_file(tmp_path / "good.jsonl", model=cascade, images=images).ok
    larger = dataclasses.replace(result, radius=result.radius * 1.5)
    larger.save(tmp_path / "bad.jsonl")
    report = verify_file(tmp_path / "bad.jsonl", model=cascade, images=images)
    assert report.counts["failed"] == int((result.radius > 0).sum())


def test_certified_predictions_for_services():
    cascade = Cascade([threshold(0.5), threshold(0.25)], ["1/8"]).eval()
    result = cascade.predict_certified(pixel(0.9, 0.5625), "1/4")
    assert result.label.tolist() == [1, 1]
    assert result.certified.tolist() == [True, False]
    assert Fraction(result.radius[0].item()) <= Fraction(1, 4)


def test_services_build_the_checks_once_and_again_for_other_weights_or_settings(monkeypatch):
    cascade = Cascade([threshold(0.5), threshold(0.25)], ["1/8"]).eval()
    image = pixel(0.9)
    prover = cascade.prover()
    assert certified_prediction.predict_certified(cascade, image, "1/4").certified.tolist() == [True]
    assert cascade.prover() is prover
    assert cascade.prover(rounding="float32-deployed") is not prover
    with torch.no_grad():
        cascade.members[1][1].bias[1] = -0.8  # the last member is no longer certified that far; the gate is open
    assert cascade.prover() is not prover
    assert certified_prediction.predict_certified(cascade, image, "1/4").certified.tolist() == [True]
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")  # now nothing shows that the gate stays open
    assert certified_prediction.predict_certified(cascade, image, "1/4").certified.tolist() == [False]
    monkeypatch.delenv("ONEDNN_DEFAULT_FPMATH_MODE")
    assert certified_prediction.predict_certified(cascade, image, "1/4").certified.tolist() == [True]
    with pytest.raises(UnsoundSettingError):
        certified_prediction.predict_certified(cascade.train(), image, "1/4")


def test_copies_and_pickles_answer_alike():
    cascade = Cascade([threshold(0.5), threshold(0.25)], ["1/8"]).eval()
    images = pixel(0.9, 0.5625, 0.4375)
    cascade.predict_certified(images, "1/16")
    for other in (pickle.loads(pickle.dumps(cascade)), copy.deepcopy(cascade)):
        assert torch.equal(other(images), cascade(images))
        assert certified(other, images) == certified(cascade, images)


def test_which_member_may_answer():
    cascade = Cascade([threshold(0.5), threshold(0.375), threshold(0.25)], ["1/4", "1/16"]).eval()
    images, answers = pixel(0.9, 0.46875, 0.4), torch.tensor([1, 1, 1])
    route = cascade.route(images)
    assert route.tolist() == [0, 1, 2]
    prover = cascade.prover()
    for wanted in (-1, 0, 1, 2, 3):
        said = torch.full((3,), wanted)
        assert torch.equal(prover.may_answer(images, answers, said), said == route)
    assert prover.may_answer(images, 1 - answers, route).tolist() == [False, False, True]  # gates know their label
    # exactly at the gate (radius 0.0625) rounding decides: neither is refused
    at_gate, one = pixel(0.4375), torch.tensor([1])
    margin = [bool(prover.may_answer(at_gate, one, torch.tensor([k]))) for k in (1, 2)]
    assert True in margin


def test_certifying_twice_gives_the_same_radii():
    cascade = Cascade([threshold(0.5), threshold(0.25)], ["1/8"]).eval()
    images = pixel(0.9, 0.5625, 0.4375)
    assert certified(cascade, images) == certified(cascade, images)


def test_a_cascade_of_ones_own_is_saved_loaded_and_refused_where_a_digest_is_wrong(tmp_path):
    members = [acert_zoo.load_model(name) for name in ("mnist_kappa050", "mnist_accurate")]
    cascade = Cascade(members, ["0.1"]).eval()
    path = tmp_path / "mine.json"
    cascade.save(path)
    again = acert_zoo.load_model(path)
    images, labels = acert_zoo.sample_data("mnist", n=8)
    assert isinstance(again, Cascade)
    assert again.weights_sha256 == cascade.weights_sha256
    assert again.gates == cascade.gates
    assert torch.equal(again(images), cascade(images))
    certify(again, images, labels).save(tmp_path / "c.jsonl")
    assert verify_file(tmp_path / "c.jsonl", model=cascade, images=images).ok
    document = json.loads(path.read_text())
    for wrong in ({"sha256": "0" * 64}, {"name": "mnist_kappa000.v1"}, {"name": str(path)}):
        changed = {**document, "members": [document["members"][0] | wrong, document["members"][1]]}
        path.write_text(json.dumps(changed))
        with pytest.raises((WeightsError, UnknownNameError)):
            acert_zoo.load_model(path)
    with pytest.raises(WeightsError, match="there is no file"):
        acert_zoo.load_model(tmp_path / "none.json")


def test_the_cascade_file_names_members_by_digest(tmp_path):
    model = lively_model()
    with pytest.raises(InvalidInputError, match="member 0 is no unchanged registered checkpoint"):
        Cascade([model], []).to_dict()
    members = [lively_model(0), lively_model(1)]
    for i, model in enumerate(members):
        model.info = dataclasses.replace(model.info, sha256=model.weights_sha256, name=f"small{i}")
        model._loaded_digest = model.weights_sha256
    cascade = Cascade(members, ["2/255"])
    sha256, size = cascade.save(tmp_path / "cascade.json")
    content = (tmp_path / "cascade.json").read_bytes()
    document = json.loads(content)
    assert document["gates"] == ["2/255"]
    assert [m["name"] for m in document["members"]] == ["small0.v1", "small1.v1"]
    assert document["members"][0]["sha256"] == members[0].weights_sha256
    assert (sha256, size) == (cascade.weights_sha256, len(content))
