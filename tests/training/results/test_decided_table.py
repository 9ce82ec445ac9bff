"""The overview of decided models, by hand."""

from __future__ import annotations

from training.results.decided_table import decided_overview

ENTRY = {
    "eps": "2/255",
    "n": 200,
    "budget_seconds": 60.0,
    "counts": {"misclassified": 66, "refuted": 47, "robust": 83, "undecided": 4},
    "certified_accuracy_ibp": 12.0,
    "certified_accuracy_without_splits": 36.5,
    "certified_accuracy": 41.5,
    "attacked_accuracy": 43.5,
    "undecided": 2.0,
    "seconds_per_image": 1.32,
}


def test_a_row_for_each_entry() -> None:
    table = decided_overview([("a", [ENTRY]), ("none", []), ("b", [ENTRY, ENTRY | {"eps": "1/255"}])], "cards/")
    rows = table.splitlines()[2:]
    assert (
        rows[0] == "| [`a`](cards/a.md) | 2/255 | first 200 | 67.0 | 12.0 | 36.5 | 41.5 | 43.5 (PGD) | 2.0 | 60; 1.3 |"
    )
    both = decided_overview([("a", [ENTRY | {"attacks": ["pgd", "autoattack"]}])], "")
    assert "| 43.5 (PGD, AutoAttack) |" in both
    assert [row.split("|")[1:3] for row in rows[1:]] == [
        [" [`b`](cards/b.md) ", " 2/255 "],
        [" [`b`](cards/b.md) ", " 1/255 "],
    ]


def test_nothing_decided_is_no_table() -> None:
    assert decided_overview([("a", [])], "") == ""
