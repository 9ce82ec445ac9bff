"""Records of models: how they show themselves, and metrics that do not fit together (more in test_registry.py)."""

from __future__ import annotations

import pytest

import acert_zoo
from acert_zoo.errors import AcertZooError
from acert_zoo.zoo.model_info import Metric


def test_a_metric_as_a_row_by_hand() -> None:
    common = {"unit": "%", "n": 10_000, "dataset": "mnist", "split": "test"}
    certified = {"eps": "2/255", "method": "ibp", "rounding": "real-sound"}
    assert Metric("accuracy", 99.38, **common).as_row() == ("natural accuracy", "99.38 % of 10,000 test images")
    row = Metric("certified_accuracy", 29.999, **common, **certified).as_row()
    assert row == ("certified at 2/255", "29.99 % (ibp, real-sound)")  # never more than was proved
    assert Metric("acr_percent", 50.0, **common, eps="8.8/255").as_row() == ("ACR", "50.00 % of 8.8/255")


@pytest.mark.parametrize("changes", [{"metric": "speed"}, {"value": 101.0}, {"n": 0}, {"eps": "2/255"}, {"unit": 3}])
def test_metrics_that_are_none(changes: dict[str, object]) -> None:
    values = {"metric": "accuracy", "value": 50.0, "unit": "%", "n": 10, "dataset": "mnist", "split": "test"} | changes
    with pytest.raises(AcertZooError, match="metric"):
        Metric(**values)  # type: ignore[arg-type]


def test_records_and_models_are_short() -> None:
    info = acert_zoo.model_info("mnist_kappa000")
    assert repr(info) == f"ModelInfo('{info.versioned_name}', mnist, acert, kappa 0, accuracy 97.36 %)"
    assert "natural accuracy" in info._repr_html_()
    model = acert_zoo.load_model("mnist_kappa000")
    assert repr(model) == f"AcertModel('{info.versioned_name}', (1, 28, 28) -> 10, 833,706 parameters)"
    assert model._repr_html_() == info._repr_html_()
