"""Documents of results: read only where they speak of the weights in question."""

from __future__ import annotations

from pathlib import Path

from training.results.zoo_folder import document_head, dump_json, read_document, write_atomic


def test_a_document_of_other_weights_is_none(tmp_path: Path) -> None:
    path = tmp_path / "it.json"
    assert read_document(path, "ab" * 32) is None
    document = {**document_head("it", 1, "ab" * 32, "mnist"), "n": 3}
    assert write_atomic(path, dump_json(document))
    assert read_document(path, "ab" * 32) == document
    assert read_document(path, "cd" * 32) is None
    assert read_document(path, None) is None
    assert not write_atomic(path, dump_json(document))  # nothing to change
