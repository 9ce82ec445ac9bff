"""Names become files: what is bundled, and cascade files, which are text."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from acert_zoo.errors import WeightsError
from acert_zoo.zoo import registry, resolve


def test_a_clone_with_line_ends_of_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cascade files are text: their digests are those of the content, whatever git made of the line ends."""
    infos = [registry.model_info(name) for name in registry.list_models()]
    cascades = [info for info in infos if info.kind == "cascade"]
    assert cascades
    (tmp_path / "checkpoints").mkdir()
    expected = [resolve.locate(info.name).content for info in cascades]
    for info in cascades:
        content = (registry.PACKAGE / str(info.file)).read_bytes()
        assert b"\r" not in content, ".gitattributes keeps the bytes"
        (tmp_path / str(info.file)).write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"))
    monkeypatch.setattr(registry, "PACKAGE", tmp_path)
    assert [resolve.locate(info.name).content for info in cascades] == expected
    assert resolve.locate(tmp_path / str(cascades[0].file)).info.name == cascades[0].name
    changed = expected[0].replace(b'"gates"', b'"gate"')
    (tmp_path / str(cascades[0].file)).write_bytes(changed)
    with pytest.raises(WeightsError, match="not the expected file"):
        resolve.locate(cascades[0].name)


def test_git_is_told_to_keep_the_bytes() -> None:
    root = Path(__file__).parents[2]
    asked = ["acert_zoo/checkpoints/mnist_cascade.v1.json", "acert_zoo/zoo.json", "acert_zoo/checkpoints/x.safetensors"]
    command = ["git", "-C", str(root), "check-attr", "eol", "text", "--", *asked]
    if shutil.which("git") is None or not (root / ".git").exists():
        pytest.skip("not a clone")
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(f"{name}: eol: lf" in said for name in asked)
    assert [f"{name}: text: auto" in said for name in asked] == [True, True, False]
    assert f"{asked[2]}: text: unset" in said
