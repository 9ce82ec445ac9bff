"""acert-zoo: image classifiers with certified l-inf robustness.

Names are imported when first used: `import acert_zoo` costs nothing, and listing models needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from acert_zoo._version import __version__

if TYPE_CHECKING:
    from acert_zoo.attacks.attack import attack
    from acert_zoo.bounds.certified_prediction import predict_certified
    from acert_zoo.cascades.cascade import Cascade
    from acert_zoo.certificates.certify import certify
    from acert_zoo.certificates.certify_dataset import DatasetCertificates, certify_dataset
    from acert_zoo.certificates.decide import Decisions, decide
    from acert_zoo.certificates.results import Certificates
    from acert_zoo.data.samples import sample_data
    from acert_zoo.errors import (
        AcertZooError,
        CertificateFileError,
        DatasetNotFoundError,
        DownloadError,
        InvalidInputError,
        MissingDependencyError,
        UnknownNameError,
        UnsoundSettingError,
        UnsupportedLayerError,
        WeightsError,
    )
    from acert_zoo.zoo.interpolation import interpolate
    from acert_zoo.zoo.leaderboard import leaderboard
    from acert_zoo.zoo.load import load_model
    from acert_zoo.zoo.model import AcertModel
    from acert_zoo.zoo.registry import ModelInfo, list_models, model_info

_HOMES = {
    "attacks.attack": ("attack",),
    "bounds.certified_prediction": ("predict_certified",),
    "cascades.cascade": ("Cascade",),
    "certificates.results": ("Certificates",),
    "certificates.certify": ("certify",),
    "certificates.certify_dataset": ("DatasetCertificates", "certify_dataset"),
    "certificates.decide": ("Decisions", "decide"),
    "errors": (
        "AcertZooError",
        "CertificateFileError",
        "DatasetNotFoundError",
        "DownloadError",
        "InvalidInputError",
        "MissingDependencyError",
        "UnknownNameError",
        "UnsoundSettingError",
        "UnsupportedLayerError",
        "WeightsError",
    ),
    "zoo.interpolation": ("interpolate",),
    "zoo.leaderboard": ("leaderboard",),
    "zoo.load": ("load_model",),
    "zoo.model": ("AcertModel",),
    "zoo.registry": ("ModelInfo", "list_models", "model_info"),
    "data.samples": ("sample_data",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AcertModel",
    "AcertZooError",
    "Cascade",
    "CertificateFileError",
    "Certificates",
    "DatasetCertificates",
    "DatasetNotFoundError",
    "Decisions",
    "DownloadError",
    "InvalidInputError",
    "MissingDependencyError",
    "ModelInfo",
    "UnknownNameError",
    "UnsoundSettingError",
    "UnsupportedLayerError",
    "WeightsError",
    "__version__",
    "attack",
    "certify",
    "certify_dataset",
    "decide",
    "interpolate",
    "leaderboard",
    "list_models",
    "load_model",
    "model_info",
    "predict_certified",
    "sample_data",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
