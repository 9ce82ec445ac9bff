"""What fails on the way from a Hub, with the real client against a real HTTP server: one clear error, no half file."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest
import torch

import acert_zoo
from acert_zoo.errors import DownloadError, WeightsError
from tests.support.hub import LOCATE, ConnectedServer, unreachable
from tests.support.hub import SMALL_NAME as NAME
from tests.support.hub import SMALL_REPO as REPO
from tests.support.models import small_model, with_config

WEIGHTS = "model.safetensors"
_ROOT = Path(__file__).resolve().parents[2]
IMAGES = torch.linspace(0, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)


def unfinished(hub: ConnectedServer) -> list[str]:
    """Files in the cache that could be taken for weights, or parts of them left behind."""
    blobs = [p for p in hub.cache.rglob("*") if p.is_file() and not p.is_symlink() and p.stat().st_size > 2000]
    return [str(p) for p in blobs if p.parent.name == "blobs"]


def test_no_network_is_one_clear_error(hub: ConnectedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    message = r"not in the local cache, and the Hub cannot be reached.*HF_ENDPOINT"
    with unreachable(monkeypatch), pytest.raises(DownloadError, match=message):
        acert_zoo.load_model(NAME)


def test_no_network_but_a_cached_copy_is_enough(repo: ConnectedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    acert_zoo.load_model(NAME)
    with unreachable(monkeypatch):
        assert torch.equal(acert_zoo.load_model(NAME)(IMAGES), small_model()(IMAGES))


def test_unknown_repository(hub: ConnectedServer) -> None:
    with pytest.raises(DownloadError, match=r"owner/nothing@main.*no such repository, or it is private"):
        acert_zoo.load_model("hf-hub:owner/nothing")
    assert hub.pauses == [], "what cannot pass is not tried again"


def test_unknown_revision(repo: ConnectedServer) -> None:
    with pytest.raises(DownloadError, match=r"owner/small@v9: config.json: the repository has no such revision"):
        acert_zoo.load_model(f"{NAME}@v9")


def test_private_repository_needs_the_right_token(hub: ConnectedServer, files: dict[str, bytes]) -> None:
    hub.hub.create(REPO, files, private=True)
    for token in (None, False, "hf_reader"):
        with pytest.raises(DownloadError, match="no such repository, or it is private"):
            acert_zoo.load_model(NAME, token=token)
    assert torch.equal(acert_zoo.load_model(NAME, token="hf_owner")(IMAGES), small_model()(IMAGES))


def test_token_of_the_environment_is_used(
    hub: ConnectedServer, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.hub.create(REPO, files, private=True)
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    acert_zoo.load_model(NAME)
    assert {headers.get("authorization") for _, _, headers in hub.requests} == {"Bearer hf_owner"}


def test_wrong_token(repo: ConnectedServer) -> None:
    with pytest.raises(DownloadError, match=r"refuses access \(401\).*token"):
        acert_zoo.load_model(NAME, token="hf_forged")


@pytest.mark.parametrize("token", [None, "hf_reader"])
def test_gated_repository(hub: ConnectedServer, files: dict[str, bytes], token: str | None) -> None:
    hub.hub.create(REPO, files, gated=True)
    with pytest.raises(DownloadError, match=r"access is gated.*log in"):
        acert_zoo.load_model(NAME, token=token)


def test_forbidden(repo: ConnectedServer) -> None:
    repo.fail("resolve", 403)
    with pytest.raises(DownloadError, match=r"refuses access \(403\)"):
        acert_zoo.load_model(NAME)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_busy_server_is_asked_again_with_growing_pauses(repo: ConnectedServer, status: int, method: str) -> None:
    repo.fail(WEIGHTS, status, method=method, times=3)
    assert torch.equal(acert_zoo.load_model(NAME)(IMAGES), small_model()(IMAGES))
    assert len(repo.pauses) >= 2
    assert repo.pauses == sorted(repo.pauses)
    assert repo.pauses[-1] > repo.pauses[0]


def test_the_pause_that_the_server_asks_for_is_kept(repo: ConnectedServer) -> None:
    repo.fail(WEIGHTS, 429, method="GET", times=1, headers={"Retry-After": "7"})
    acert_zoo.load_model(NAME)
    assert max(repo.pauses) >= 7


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("status", [429, 503])
def test_server_that_stays_busy_is_given_up(repo: ConnectedServer, status: int, method: str) -> None:
    repo.fail(WEIGHTS, status, method=method)
    with pytest.raises(DownloadError, match=rf"the Hub answered {status}; try again later"):
        acert_zoo.load_model(NAME)
    assert 3 <= len(repo.pauses) <= 40
    assert unfinished(repo) == []


def test_connection_cut_in_mid_file_continues_where_it_broke(
    repo: ConnectedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 250)  # the client writes, and continues, by chunks
    repo.cut(WEIGHTS, 1000)
    assert torch.equal(acert_zoo.load_model(NAME)(IMAGES), small_model()(IMAGES))
    ranges = [h.get("range") for m, path, h in repo.requests if m == "GET" and path.endswith(WEIGHTS)]
    assert ranges == [None, "bytes=1000-"]


def test_connection_cut_again_and_again(repo: ConnectedServer) -> None:
    repo.cut(WEIGHTS, 100, times=10)
    assert torch.equal(acert_zoo.load_model(NAME)(IMAGES), small_model()(IMAGES))


def test_connection_always_cut_leaves_no_half_file(repo: ConnectedServer) -> None:
    repo.cut(WEIGHTS, 0, times=10**9)
    with pytest.raises(DownloadError, match=r"model.safetensors: the (connection failed|transfer broke off).*attempts"):
        acert_zoo.load_model(NAME)
    assert unfinished(repo) == []
    repo.plans.clear()
    assert torch.equal(acert_zoo.load_model(NAME)(IMAGES), small_model()(IMAGES))


def test_killed_in_mid_download_the_next_process_gets_the_whole_file(repo: ConnectedServer, tmp_path: Path) -> None:
    import signal
    import threading

    reached, release = threading.Event(), threading.Event()

    def stall(content: bytes) -> bytes:
        reached.set()
        release.wait(60)
        return content

    repo.alter(WEIGHTS, stall, times=1)
    process = subprocess.Popen(LOCATE, env=repo.environment(), cwd=_ROOT)
    try:
        assert reached.wait(60), "the download has begun"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        release.set()
    with pytest.raises(DownloadError):
        acert_zoo.load_model(NAME, local_files_only=True)
    assert torch.equal(acert_zoo.load_model(NAME)(IMAGES), small_model()(IMAGES))


def test_two_processes_download_at_once(repo: ConnectedServer) -> None:
    options = {"env": repo.environment(), "cwd": _ROOT, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(LOCATE, **options) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert outputs == [acert_zoo.load_model(NAME, local_files_only=True).info.sha256] * 2


def test_other_bytes_than_the_config_promises(repo: ConnectedServer) -> None:
    repo.alter(WEIGHTS, lambda content: content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(WeightsError, match=r"is not the expected file: its sha256 is .* left where it is"):
        acert_zoo.load_model(NAME)
    with pytest.raises(WeightsError, match="is not the expected file"):
        acert_zoo.load_model(NAME)  # the bad copy in the cache is not trusted either
    repo.plans.clear()
    loaded = acert_zoo.load_model(NAME, force_download=True)
    assert torch.equal(loaded(IMAGES), small_model()(IMAGES))


def test_a_blob_cut_short_in_the_cache_is_noticed(repo: ConnectedServer) -> None:
    acert_zoo.load_model(NAME)
    (blob,) = unfinished(repo)
    os.truncate(blob, 2500)
    with pytest.raises(WeightsError, match=r"2,500 bytes instead of .*truncated"):
        acert_zoo.load_model(NAME, local_files_only=True)
    assert torch.equal(acert_zoo.load_model(NAME, force_download=True)(IMAGES), small_model()(IMAGES))


def test_disk_full(repo: ConnectedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import file_download

    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(file_download, "http_get", full)
        with pytest.raises(DownloadError, match=r"config.json: the disk is full; free some space or pass cache_dir"):
            acert_zoo.load_model(NAME)
    assert repo.pauses == []
    assert torch.equal(acert_zoo.load_model(NAME)(IMAGES), small_model()(IMAGES))


@pytest.mark.filterwarnings("ignore:Not enough free disk space")
def test_really_full_disk(repo: ConnectedServer, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    if os.name != "posix" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tiny tmpfs needs root")
    try:
        (disk / "ballast").write_bytes(b"x" * 8192)
        with pytest.raises(DownloadError, match=r"model.safetensors: the disk is full|config.json: the disk is full"):
            acert_zoo.load_model(NAME, cache_dir=disk)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_cache_folder_that_cannot_be_written(repo: ConnectedServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DownloadError, match=r"the cache folder cannot be written.*pass cache_dir"):
        acert_zoo.load_model(NAME, cache_dir=tmp_path / "file" / "cache")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_cache_folder_without_permission(repo: ConnectedServer, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(DownloadError, match=r"the cache folder cannot be written.*pass cache_dir"):
        acert_zoo.load_model(NAME, cache_dir=folder)


def test_permission_denied_reads_the_same(repo: ConnectedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/cache")

    monkeypatch.setattr(os, "makedirs", refuse)
    with pytest.raises(DownloadError, match=r"the cache folder cannot be written.*/cache.*pass cache_dir"):
        acert_zoo.load_model(NAME)


def test_read_only_cache_that_has_the_model(repo: ConnectedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    acert_zoo.load_model(NAME)
    monkeypatch.setattr(os, "makedirs", lambda *a, **k: pytest.fail("nothing is written"))
    acert_zoo.load_model(NAME)


def test_a_repository_with_pickled_weights_only_is_refused(hub: ConnectedServer, files: dict[str, bytes]) -> None:
    hub.hub.create(REPO, {"config.json": files["config.json"], "pytorch_model.bin": b"\x80\x04."})
    with pytest.raises(WeightsError, match=r"not an acert-zoo repository.*Pickled weights .* never loaded"):
        acert_zoo.AcertModel.from_pretrained(REPO)
    assert not [path for path in hub.paths() if "pytorch_model" in path]


def test_somebody_elses_repository_is_refused(hub: ConnectedServer) -> None:
    hub.hub.create(REPO, {"config.json": b'{"model_type": "resnet"}', WEIGHTS: b"..."})
    with pytest.raises(WeightsError, match=r'config.json is not of an acert-zoo model \("format": "acert-zoo"'):
        acert_zoo.load_model(NAME)
    hub.hub.create("owner/plain", {"README.md": b"hello"})
    with pytest.raises(WeightsError, match=r"must hold config\.json and model\.safetensors"):
        acert_zoo.load_model("hf-hub:owner/plain")


def test_config_without_digest_is_refused(hub: ConnectedServer, files: dict[str, bytes]) -> None:
    hub.hub.create(REPO, with_config(files, sha256=None))
    with pytest.raises(WeightsError, match="gives no sha256 and size"):
        acert_zoo.load_model(NAME)
