"""Choosing models by fields, conditions and order."""

from __future__ import annotations

from fractions import Fraction

import pytest

from acert_zoo.errors import InvalidInputError, UnknownNameError
from acert_zoo.zoo.model_info import Metric, ModelInfo
from acert_zoo.zoo.selection import Condition, field_value, select


def info(name: str, accuracy: float, certified: float | None, **values: object) -> ModelInfo:
    common = {"n": 100, "dataset": "cifar10", "split": "test", "unit": "%"}
    metrics = [Metric(metric="accuracy", value=accuracy, **common)]
    if certified is not None:
        proof = {"eps": "2/255", "method": "ibp", "rounding": "real-sound"}
        metrics.append(Metric(metric="certified_accuracy", value=certified, **proof, **common))
    record = {"arch": "cnn", "arch_kwargs": {}, "dataset": "cifar10", "method": "acert", "metrics": tuple(metrics)}
    return ModelInfo(name=name, **{**record, **values})


MODELS = [
    info("a_one", 50.1, 40.0, kappa=0.1, parameters=10),
    info("a_two", 70.0, 30.0, method="ibp", training={"seconds": 7200}),
    info("b_three", 91.05, None, dataset="mnist", eps_max="8.8/255"),
]


def names(**arguments: object) -> list[str]:
    return [m.name for m in select(MODELS, **arguments)]


def test_fields_by_hand() -> None:
    assert field_value(MODELS[0], "accuracy") == Fraction("50.1")
    assert field_value(MODELS[0], "certified@2/255") == 40
    assert field_value(MODELS[0], "certified@4/510") == 40  # the same radius
    assert field_value(MODELS[0], "certified@8/255") is None
    assert field_value(MODELS[0], "kappa") == Fraction(1, 10)
    assert field_value(MODELS[0], "rounding") == "real-sound"
    assert field_value(MODELS[1], "hours") == 2
    assert field_value(MODELS[2], "eps_max") == Fraction(88, 2550)
    assert field_value(MODELS[2], "verifier") is None


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("accuracy>70", ["b_three"]),
        ("accuracy >= 70", ["a_two", "b_three"]),
        ("accuracy=50.1", ["a_one"]),
        ("certified@2/255<40", ["a_two"]),  # what has no value is not below it
        ("kappa!=0.5", ["a_one"]),
        ("method=acert", ["a_one", "b_three"]),
        ("method!=acert", ["a_two"]),
        ("name=a_*", ["a_one", "a_two"]),
        ("eps_max<=8.8/255", ["b_three"]),
        (["name=a_*", "accuracy>60"], ["a_two"]),
    ],
)
def test_conditions(where: object, expected: list[str]) -> None:
    assert names(where=where) == expected


def test_patterns_and_order() -> None:
    assert names(pattern="a_*") == ["a_one", "a_two"]
    assert names(pattern="a_one") == ["a_one"]
    assert names(dataset="mnist") == ["b_three"]
    assert names(method="i?p") == ["a_two"]
    assert names(pattern="nothing*") == []
    assert names(sort="accuracy") == ["b_three", "a_two", "a_one"]
    assert names(sort="-accuracy") == ["a_one", "a_two", "b_three"]
    assert names(sort="certified@2/255") == ["a_one", "a_two", "b_three"]
    assert names(sort="-certified@2/255") == ["a_two", "a_one", "b_three"]  # what has no value stays last
    assert names(sort="name") == ["a_one", "a_two", "b_three"]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"where": "accuracy"}, InvalidInputError, "FIELD OPERATOR VALUE"),
        ({"where": "accuracy>high"}, InvalidInputError, "high"),
        ({"where": "acuracy>3"}, UnknownNameError, "did you mean accuracy"),
        ({"where": "method>acert"}, InvalidInputError, "is text"),
        ({"where": "certified@x>3"}, InvalidInputError, "'x'"),
        ({"where": "accuracy@2/255>3"}, UnknownNameError, "accuracy@2/255"),
        ({"sort": "speed"}, UnknownNameError, "speed"),
        ({"pattern": "a_on"}, UnknownNameError, "did you mean a_one"),
        ({"dataset": "cifar"}, UnknownNameError, "cifar10"),
        ({"pattern": 5}, InvalidInputError, "pattern: expected a text, got 5"),
        ({"dataset": ["cifar10"]}, InvalidInputError, "dataset: expected a text"),
        ({"where": 5}, InvalidInputError, "where: expected a condition"),
        ({"where": [5]}, InvalidInputError, "where: expected a condition"),
        ({"sort": 5}, InvalidInputError, "sort: expected a text"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        names(**arguments)


def test_a_condition_reads_as_it_is_written() -> None:
    assert Condition.parse("certified@8.8/255 >= 3.5") == Condition("certified@8.8/255", ">=", "3.5")
