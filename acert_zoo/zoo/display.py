"""How records and models show themselves in notebooks. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from acert_zoo.zoo.model_info import ModelInfo


def html_table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """A heading and a table of two columns; every text escaped."""
    cells = "".join(f"<tr><th style='text-align:left'>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in rows)
    return f"<div><strong>{escape(title)}</strong><table>{cells}</table></div>"


def info_text(info: ModelInfo) -> str:
    """ "ModelInfo('cifar10_kappa025.v1', cifar10, acert, kappa 0.25, accuracy 54.56 %)"."""
    accuracy = info.metric("accuracy")
    parts = [
        repr(info.versioned_name),
        info.dataset,
        info.method or info.kind,
        None if info.kappa is None else f"kappa {info.kappa:g}",
        f"accuracy {_percent(accuracy.value)}" if accuracy else None,
    ]
    return f"ModelInfo({', '.join(part for part in parts if part)})"


def info_html(info: ModelInfo) -> str:
    """The record as a small table: what was trained how, and its figures."""
    kappa = "" if info.kappa is None else f", kappa {info.kappa:g}"
    rows = [
        ("data set", info.dataset or "-"),
        ("trained with", f"{info.method or info.kind}{kappa}"),
        ("parameters", f"{info.parameters:,}" if info.parameters else "-"),
    ]
    for m in info.metrics:
        if m.metric == "accuracy":
            rows.append(("natural accuracy", f"{_percent(m.value)} of {m.n:,} {m.split} images"))
        elif m.metric == "certified_accuracy":
            rows.append((f"certified at {m.eps}", f"{_percent(m.value)} ({m.method}, {m.rounding})"))
        elif m.metric == "acr_percent":
            rows.append(("ACR", f"{_percent(m.value)} of {m.eps}"))
    return html_table(info.versioned_name, rows)


def _percent(value: float) -> str:
    """The recorded decimal, cut to two places."""
    hundredths = Fraction(repr(float(value))) * 100 // 1
    return f"{hundredths // 100}.{hundredths % 100:02d} %"
