"""Hostile repositories, files and caches: nothing runs, nothing outside the cache is touched, no memory is wasted."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import acert_zoo
from acert_zoo._json import canonical_json
from acert_zoo.errors import AcertZooError, DownloadError, InvalidInputError, WeightsError
from tests.support.hub import ConnectedServer, new_session
from tests.support.models import KWARGS, files_of, small_model, with_config

ROOT = Path(__file__).resolve().parents[2]
REPO = "owner/hostile"
NAME = f"hf-hub:{REPO}"
WEIGHTS = "model.safetensors"


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    return files_of(small_model(), tmp_path / "saved")


def with_weights(files: dict[str, bytes], content: bytes) -> dict[str, bytes]:
    """Other weights, whose digest and size the config gives truly."""
    changed = with_config(files, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    return changed | {WEIGHTS: content}


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_disguised_as_safetensors_is_not_unpickled(
    hub: ConnectedServer, files: dict[str, bytes], tmp_path: Path, protocol: int
) -> None:
    target = tmp_path / "executed"
    hub.hub.create(REPO, with_weights(files, pickle.dumps(Bomb(target), protocol)))
    with pytest.raises(WeightsError, match="not a safetensors file"):
        acert_zoo.load_model(NAME)
    assert not target.exists()


def test_a_torch_archive_disguised_as_safetensors_is_not_unpickled(tmp_path: Path, files: dict[str, bytes]) -> None:
    import torch

    target = tmp_path / "executed"
    torch.save({"x": Bomb(target)}, tmp_path / "archive")
    path = tmp_path / "saved"
    for name, content in with_weights(files, (tmp_path / "archive").read_bytes()).items():
        (path / name).write_bytes(content)
    for name in (path, path / WEIGHTS):
        with pytest.raises(WeightsError, match="a pickle or a zip archive, not a safetensors file; it was not loaded"):
            acert_zoo.load_model(name)
    assert not target.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
def test_pickled_weights_beside_a_config_are_refused(files: dict[str, bytes], tmp_path: Path, name: str) -> None:
    target, folder = tmp_path / "executed", tmp_path / "saved"
    (folder / WEIGHTS).unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb(target)))
    with pytest.raises(WeightsError, match=rf"holds no model\.safetensors; {name} is not loaded: unpickling"):
        acert_zoo.load_model(folder)
    assert not target.exists()


_LIMITED = """
import resource, sys
import acert_zoo, torch
from acert_zoo.errors import AcertZooError
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
for name in sys.argv[1:]:
    try:
        acert_zoo.load_model(name)
    except AcertZooError as error:
        print(type(error).__name__)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to read and limit its own memory")
def test_claims_of_absurd_size_take_no_memory(files: dict[str, bytes], tmp_path: Path) -> None:
    """In a process that may take 256 MiB more: headers of 2^60 bytes, tensors of 2^80 values, absurd architectures."""
    huge = json.dumps({"x": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}).encode()
    hostile = [
        with_weights(files, (2**60).to_bytes(8, "little") + b"{}" + b" " * 100),
        with_weights(files, (2**64 - 1).to_bytes(8, "little") + b"{}" + b" " * 100),
        with_weights(files, len(huge).to_bytes(8, "little") + huge + b"1234"),
        with_config(files, size=2**60),
    ]
    for changes in (
        {"hidden": 10**6},  # 400 MB of parameters: allowed, but the file is small
        {"hidden": 10**12},
        {"convs": [[10**6, 1]] * 3},
        {"convs": [[4, 1]] * 10**5},
        {"input_shape": [3, 10**6, 10**6]},
        {"num_classes": 10**15},
        {"hidden": 10**400},
    ):
        hostile.append(with_config(files, arch_kwargs={**KWARGS, **changes}))
    hostile.append(with_config(files, arch="cnn7", arch_kwargs={**_cnn7(), "width": 10**9}))
    hostile.append({**files, "config.json": b'{"a":' * 100_000})
    hostile.append({**files, "config.json": b" " * 2**21})
    for i, content in enumerate(hostile):
        (tmp_path / f"{i}").mkdir()
        for name, data in content.items():
            (tmp_path / f"{i}" / name).write_bytes(data)
    command = [sys.executable, "-c", _LIMITED, *(str(tmp_path / f"{i}") for i in range(len(hostile)))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["WeightsError"] * len(hostile)


def _cnn7() -> dict[str, Any]:
    return {k: v for k, v in KWARGS.items() if k != "convs"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arch": "resnet9000"}, "unknown architecture 'resnet9000'"),
        ({"arch": "__import__('os').system('touch executed')"}, "unknown architecture"),
        ({"arch": "torch.nn.Sequential"}, "unknown architecture"),
        ({"arch": "os.system", "arch_kwargs": {"command": "touch executed"}}, "unknown architecture"),
        ({"arch_kwargs": {**KWARGS, "__class__": "os.system"}}, "cannot be built"),
        ({"arch_kwargs": {**KWARGS, "hidden": "8; import os"}}, "positive integers"),
        ({"arch_kwargs": {**KWARGS, "mean": ["a", "b", "c"]}}, "cannot be built"),
        ({"auto_map": {"AutoModel": "modeling.Evil"}}, "unknown key"),
        ({"trust_remote_code": True}, "unknown key"),
        ({"file": "../../../../etc/passwd"}, "plain relative path"),
    ],
)
def test_a_dangerous_config_runs_nothing(
    hub: ConnectedServer,
    files: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: Any,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code = b"import os; os.mkdir('executed')"
    hub.hub.create(REPO, with_config(files, **changes) | {"modeling.py": code, "hubconf.py": code})
    with pytest.raises(AcertZooError, match=message):
        acert_zoo.load_model(NAME)
    assert not (tmp_path / "executed").exists()
    assert not [path for path in hub.paths() if path.endswith(".py")], "code is not even fetched"


def test_file_names_that_climb_out_of_the_repository_are_never_asked_for(
    hub: ConnectedServer, files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.hub.create(REPO, files | {"../../../../evil": b"evil", "/etc/evil": b"evil", "a/../../evil": b"evil"})
    before = {p for p in tmp_path.rglob("*") if not p.is_relative_to(hub.cache)}
    acert_zoo.load_model(NAME)
    assert {path.rpartition("/")[2] for path in hub.paths()} == {"config.json", WEIGHTS}
    after = {p for p in tmp_path.rglob("*") if not p.is_relative_to(hub.cache)} - {hub.cache.parent}
    assert after == before
    assert all(b"evil" not in p.read_bytes() for p in hub.cache.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    "repo",
    ["../x", "owner/..", "owner/../..", "/etc/passwd", "owner/a/b", "owner/a--b/../c", "owner\\a/b", "", "@", "a/b\0"],
)
def test_repository_names_that_are_paths(hub: ConnectedServer, repo: str) -> None:
    with pytest.raises(InvalidInputError, match="expected owner/name"):
        acert_zoo.load_model(f"hf-hub:{repo}")
    assert hub.requests == []


@pytest.mark.parametrize("header", ["ETag", "X-Linked-Etag", "X-Repo-Commit"])
@pytest.mark.parametrize("value", ['"../../../../planted"', "/tmp/planted", "..", "a/../../../../planted"])
def test_a_server_cannot_write_outside_the_cache_through_its_headers(
    hub: ConnectedServer, files: dict[str, bytes], tmp_path: Path, header: str, value: str
) -> None:
    """huggingface_hub builds paths of its cache from these headers."""
    hub.hub.create(REPO, files)
    hub.set_header("resolve", header, value)
    before = {p for p in tmp_path.rglob("*") if not p.is_relative_to(hub.cache)}
    with pytest.raises(DownloadError, match="which is a path; not trusted"):
        acert_zoo.load_model(NAME)
    after = {p for p in tmp_path.rglob("*") if not p.is_relative_to(hub.cache)} - {hub.cache.parent}
    assert after == before
    assert not Path("/tmp/planted").exists()


def test_the_check_of_headers_outlives_the_clients_connection(
    hub: ConnectedServer, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """huggingface_hub makes itself a new HTTP client after a failed connection."""
    hub.hub.create(REPO, files)
    hub.fail("resolve", 503, times=2)
    hub.set_header("resolve", "ETag", '"../../../../planted"')
    monkeypatch.setattr("time.sleep", lambda seconds: new_session())
    with pytest.raises(DownloadError, match="which is a path; not trusted"):
        acert_zoo.load_model(NAME)
    assert not list(tmp_path.rglob("*planted*"))


def test_other_callers_of_huggingface_hub_are_left_alone(hub: ConnectedServer, files: dict[str, bytes]) -> None:
    from huggingface_hub.file_download import get_hf_file_metadata

    hub.hub.create(REPO, files)
    acert_zoo.load_model(NAME)
    hub.set_header("resolve", "ETag", '"a/b"')
    assert get_hf_file_metadata(f"{hub.url}/{REPO}/resolve/main/config.json").etag == "a/b"


@pytest.mark.parametrize(
    "revision", ["../../../planted", "/tmp/planted", "a\\b", "v1:x", "a\0", "x/../../../../planted"]
)
def test_revisions_that_are_paths(hub: ConnectedServer, files: dict[str, bytes], revision: str) -> None:
    """The client writes a file of the revision's name into its cache."""
    hub.hub.create(REPO, files)
    hub.hub.repositories[REPO].tags[revision] = hub.hub.repositories[REPO].branches["main"]  # a mirror that plays along
    for options in ({}, {"local_files_only": True}):
        with pytest.raises(InvalidInputError, match="expected a branch, tag or commit id"):
            acert_zoo.load_model(NAME, revision=revision, **options)
    assert hub.requests == []


def test_revisions_with_slashes(hub: ConnectedServer, files: dict[str, bytes]) -> None:
    hub.hub.create(REPO, files)
    hub.hub.repositories[REPO].branches["refs/pr/1"] = hub.hub.repositories[REPO].branches["main"]
    assert acert_zoo.load_model(f"{NAME}@refs/pr/1").info.name == "small"


def _snapshot(hub: ConnectedServer, name: str) -> Path:
    (path,) = hub.cache.glob(f"models--owner--hostile/snapshots/*/{name}")
    return path


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_link_in_the_cache_that_leads_out_is_not_followed(
    hub: ConnectedServer, files: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    hub.hub.create(REPO, files)
    acert_zoo.load_model(NAME)
    secret = tmp_path / "secret"
    secret.write_bytes(files[name])  # even the right content: a link to elsewhere can change after the check
    link = _snapshot(hub, name)
    link.unlink()
    link.symlink_to(secret)
    with pytest.raises(DownloadError, match=r"leads out of the cache, to .*secret; it is not read"):
        acert_zoo.load_model(NAME, local_files_only=True)
    assert secret.read_bytes() == files[name]


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
@pytest.mark.parametrize("target", ["/dev/zero", "/etc/passwd", "loop", "folder", "nothing"])
def test_other_links_in_the_cache(hub: ConnectedServer, files: dict[str, bytes], name: str, target: str) -> None:
    hub.hub.create(REPO, files)
    acert_zoo.load_model(NAME)
    link = _snapshot(hub, name)
    link.unlink()
    (link.parent / "folder").mkdir()
    link.symlink_to({"loop": link.name}.get(target, target))
    with pytest.raises(WeightsError):
        acert_zoo.load_model(NAME, local_files_only=True)


def test_a_pipe_in_the_cache_does_not_block(hub: ConnectedServer, files: dict[str, bytes]) -> None:
    hub.hub.create(REPO, files)
    acert_zoo.load_model(NAME)
    path = _snapshot(hub, WEIGHTS)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(WeightsError, match="not a plain file"):
        acert_zoo.load_model(NAME, local_files_only=True)


def test_a_member_of_a_cascade_is_a_registered_checkpoint_or_nothing(
    hub: ConnectedServer, files: dict[str, bytes], tmp_path: Path
) -> None:
    for member in ("/etc/passwd", str(tmp_path / "saved"), f"hf-hub:{REPO}", "nothing"):
        document = {"schema_version": 1, "members": [{"name": member, "sha256": "0" * 64}] * 2, "gates": ["1/255"]}
        content = canonical_json(json.dumps(document).encode())
        config = with_config(files, kind="cascade", sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        (tmp_path / "saved" / "config.json").write_bytes(config["config.json"])
        (tmp_path / "saved" / "cascade.json").write_bytes(content)
        with pytest.raises(AcertZooError, match=r"this release of acert-zoo does not have .*unknown model"):
            acert_zoo.load_model(tmp_path / "saved")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"{" * 100_000,
        b'{"schema_version": 2, "members": [], "gates": []}',
        json.dumps({"schema_version": 1, "members": [{"name": "x", "sha256": "0"}] * 10**4, "gates": []}).encode(),
    ],
)
def test_files_that_are_no_cascade(files: dict[str, bytes], tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "saved"
    digest = {"sha256": hashlib.sha256(content).hexdigest(), "size": max(len(content), 1)}
    (folder / "config.json").write_bytes(with_config(files, kind="cascade", **digest)["config.json"])
    (folder / "cascade.json").write_bytes(content)
    with pytest.raises(WeightsError):
        acert_zoo.load_model(folder)
