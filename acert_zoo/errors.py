"""The errors (and one warning) that acert_zoo raises on purpose; each names the bad value and what would do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AcertZooError(Exception):
    """Base class of every error that acert_zoo raises on purpose."""


class InvalidInputError(AcertZooError, ValueError):
    """An argument has a value that cannot be used (pixels outside [0, 1], a negative eps, ...)."""


class UnknownNameError(AcertZooError, ValueError):
    """A model, data set, method or key does not exist; the message suggests near names."""

    @classmethod
    def near(cls, kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
        """Builds the error for `name`, with the closest of the `known` names in its message."""
        known = sorted(known)
        lower = {k.lower(): k for k in known}
        close = [lower[c] for c in difflib.get_close_matches(str(name).lower(), lower, n=3, cutoff=0.5)]
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        return cls(
            f"unknown {kind} {name!r}{hint} Known: {', '.join(known)}."
            if hint
            else f"unknown {kind} {name!r}; known: {', '.join(known)}."
        )


class UnsupportedLayerError(AcertZooError, NotImplementedError):
    """The network holds an operation that no bound here covers; the message names it."""


class UnsoundSettingError(AcertZooError, RuntimeError):
    """A setting (train mode, TF32, autocast, ...) under which the asked rounding level proves nothing."""


class WeightsError(AcertZooError, RuntimeError):
    """A weights file is missing, altered, truncated or not of the architecture it claims."""


class DownloadError(WeightsError):
    """The Hugging Face Hub cannot be reached, refuses, or has no such file; the message gives a remedy."""


class CertificateFileError(AcertZooError, ValueError):
    """A certificate file cannot be read as one."""


class RefutedCertificateError(AcertZooError, RuntimeError):
    """An adversarial image was found within a certified radius: a certificate is wrong. Please report it."""


class MissingDependencyError(AcertZooError, ImportError):
    """An optional package is not installed; the message holds the exact install command."""


class DatasetNotFoundError(AcertZooError, FileNotFoundError):
    """A data set is not on this machine; the message says how to get it."""
