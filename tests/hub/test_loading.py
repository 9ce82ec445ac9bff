"""Loading from a Hub, with the real client against a real HTTP server.

Also tested here: zoo/download.py.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

import acert_zoo
from acert_zoo.errors import DownloadError, InvalidInputError, UnknownNameError, WeightsError
from acert_zoo.zoo import registry
from tests.support.hub import LOCATE, ConnectedServer
from tests.support.hub import SMALL_NAME as NAME
from tests.support.hub import SMALL_REPO as REPO
from tests.support.models import files_of, record_of, small_model

WEIGHTS = "model.safetensors"
_ROOT = Path(__file__).resolve().parents[2]
IMAGES = torch.linspace(0, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)


def test_a_repository_gives_the_model_that_was_saved(repo: ConnectedServer) -> None:
    loaded = acert_zoo.load_model(NAME)
    assert isinstance(loaded, acert_zoo.AcertModel)
    assert not loaded.training
    assert torch.equal(loaded(IMAGES), small_model()(IMAGES))


def test_from_pretrained_takes_owner_slash_repo(repo: ConnectedServer) -> None:
    loaded = acert_zoo.AcertModel.from_pretrained(REPO)
    assert torch.equal(loaded(IMAGES), small_model()(IMAGES))


def test_from_pretrained_prefers_what_lies_on_disk(
    repo: ConnectedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_model(seed=1).save_pretrained(tmp_path / REPO)
    (tmp_path / "owner" / "file.safetensors").write_bytes((tmp_path / REPO / WEIGHTS).read_bytes())
    monkeypatch.chdir(tmp_path)
    for name in (REPO, Path(REPO), "owner/file.safetensors"):
        assert torch.equal(acert_zoo.AcertModel.from_pretrained(name)(IMAGES), small_model(seed=1)(IMAGES))
    assert repo.requests == []


def test_the_second_time_no_file_is_fetched(repo: ConnectedServer) -> None:
    acert_zoo.load_model(NAME)
    gets = len(repo.paths("GET"))
    acert_zoo.load_model(NAME)
    assert len(repo.paths("GET")) == gets


def test_a_cached_commit_needs_no_request_at_all(repo: ConnectedServer) -> None:
    commit = repo.hub.repositories[REPO].branches["main"]
    acert_zoo.load_model(f"{NAME}@{commit}")
    asked = len(repo.requests)
    acert_zoo.load_model(f"{NAME}@{commit}")
    assert len(repo.requests) == asked


def test_a_tag_names_the_weights_of_its_time(repo: ConnectedServer, tmp_path: Path) -> None:
    repository = repo.hub.repositories[REPO]
    repository.tags["v1"] = repository.branches["main"]
    repo.hub.add_files(REPO, files_of(small_model(seed=1), tmp_path / "new"))
    assert torch.equal(acert_zoo.load_model(f"{NAME}@v1")(IMAGES), small_model()(IMAGES))
    assert torch.equal(acert_zoo.load_model(NAME, revision="v1")(IMAGES), small_model()(IMAGES))
    assert torch.equal(acert_zoo.load_model(NAME)(IMAGES), small_model(seed=1)(IMAGES))


def test_weights_come_from_the_commit_whose_config_was_read(
    repo: ConnectedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from acert_zoo.zoo import resolve

    newer = files_of(small_model(seed=1), tmp_path / "new")
    read = resolve.read_config

    def read_and_move(path: Path, source: str) -> acert_zoo.ModelInfo:
        repo.hub.add_files(REPO, newer)  # the branch moves between the two downloads
        return read(path, source)

    monkeypatch.setattr(resolve, "read_config", read_and_move)
    assert torch.equal(acert_zoo.load_model(NAME)(IMAGES), small_model()(IMAGES))


def test_cache_dir_is_used(repo: ConnectedServer, tmp_path: Path) -> None:
    acert_zoo.load_model(NAME, cache_dir=tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "models--owner--small").is_dir()
    assert not repo.cache.exists()


def test_local_files_only_takes_the_cache_and_asks_nobody(repo: ConnectedServer) -> None:
    with pytest.raises(DownloadError, match=r"not in the local cache.*local_files_only"):
        acert_zoo.load_model(NAME, local_files_only=True)
    assert repo.requests == []
    acert_zoo.load_model(NAME)
    asked = len(repo.requests)
    acert_zoo.load_model(NAME, local_files_only=True)
    assert len(repo.requests) == asked


def test_offline_variable_takes_the_cache_and_asks_nobody(
    repo: ConnectedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match=r"not in the local cache.*HF_HUB_OFFLINE"):
        acert_zoo.load_model(NAME)
    assert repo.requests == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    acert_zoo.load_model(NAME)
    asked = len(repo.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    acert_zoo.load_model(NAME)
    assert len(repo.requests) == asked


@pytest.fixture
def published(repo: ConnectedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A registry whose one model is not bundled, but on the Hub; the id of the commit that it pins."""
    monkeypatch.setattr(registry, "PACKAGE", tmp_path)
    monkeypatch.setattr(registry, "REGISTRY_PATH", tmp_path / "zoo.json")
    (tmp_path / "zoo.json").write_text('{"schema_version": 1, "models": []}')
    commit = repo.hub.repositories[REPO].branches["main"]
    location = {"repo_id": REPO, "revision": commit}
    registry.add_record(tmp_path / "zoo.json", record_of(small_model(), tmp_path / "saved", hub=location))
    return commit


def test_a_registered_model_that_is_not_bundled_comes_from_its_pinned_revision(
    repo: ConnectedServer, published: str, tmp_path: Path
) -> None:
    repo.hub.add_files(REPO, files_of(small_model(seed=1), tmp_path / "newer"))
    assert torch.equal(acert_zoo.load_model("small")(IMAGES), small_model()(IMAGES))
    assert {path for path in repo.paths() if "/resolve/" in path} == {f"/{REPO}/resolve/{published}/{WEIGHTS}"}
    asked = len(repo.requests)
    assert torch.equal(acert_zoo.load_model("small.v1", local_files_only=True)(IMAGES), small_model()(IMAGES))
    assert len(repo.requests) == asked


def test_a_bundled_file_needs_no_hub(repo: ConnectedServer, published: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    content = (tmp_path / "saved" / WEIGHTS).read_bytes()
    (tmp_path / "checkpoints" / "small.v1.safetensors").write_bytes(content)
    acert_zoo.load_model("small")
    assert repo.requests == []


def test_the_registry_not_the_repository_says_what_the_bytes_are(
    repo: ConnectedServer, published: str, tmp_path: Path
) -> None:
    newer = repo.hub.add_files(REPO, files_of(small_model(seed=1), tmp_path / "newer"))
    repo.hub.repositories[REPO].commits[published].files.update(newer.files)  # history rewritten
    with pytest.raises(WeightsError, match=r"is not the expected file|truncated or altered"):
        acert_zoo.load_model("small")


def test_no_progress_bar_when_not_wanted(
    repo: ConnectedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import file_download
    from huggingface_hub.utils import are_progress_bars_disabled

    disabled, fetch = [], file_download.http_get

    def spy(*arguments: object, **options: object) -> None:
        disabled.append(are_progress_bars_disabled())
        fetch(*arguments, **options)

    monkeypatch.setattr(file_download, "http_get", spy)
    acert_zoo.load_model(NAME, progress=False)
    acert_zoo.load_model(NAME, cache_dir=tmp_path / "other")
    assert disabled == [True, True, False, False]


def test_two_revisions_or_one_where_none_belongs(repo: ConnectedServer, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="name two revisions"):
        acert_zoo.load_model(f"{NAME}@v1", revision="v2")
    with pytest.raises(InvalidInputError, match="applies to Hub repositories"):
        acert_zoo.load_model(tmp_path, revision="v2")


def test_a_bare_owner_slash_repo_gets_a_hint() -> None:
    with pytest.raises(UnknownNameError, match="for a Hub repository write hf-hub:owner/small"):
        acert_zoo.load_model(REPO)


def test_push_to_hub_and_back(hub: ConnectedServer, tmp_path: Path) -> None:
    url = small_model().push_to_hub(REPO, token="hf_owner", private=True)
    repository = hub.hub.repositories[REPO]
    assert repository.private
    assert url.endswith(f"/{REPO}/commit/{repository.branches['main']}")
    assert len(repository.history("main")) == 2, "one commit beside the initial one"
    assert repository.resolve("main").files[WEIGHTS].lfs
    assert f'load_model("{NAME}")' in repository.resolve("main").files["README.md"].content.decode()
    loaded = acert_zoo.AcertModel.from_pretrained(REPO, token="hf_owner")
    assert torch.equal(loaded(IMAGES), small_model()(IMAGES))


def test_pushing_twice_makes_no_second_commit_and_keeps_the_card(hub: ConnectedServer) -> None:
    small_model().push_to_hub(REPO, token="hf_owner")
    hub.hub.add_files(REPO, {"README.md": b"---\nlicense: apache-2.0\n---\n# my own card\n"})
    before = len(hub.hub.repositories[REPO].history("main"))
    small_model().push_to_hub(REPO, token="hf_owner")
    assert len(hub.hub.repositories[REPO].history("main")) == before
    assert b"my own card" in hub.hub.repositories[REPO].resolve("main").files["README.md"].content


def test_endpoint_home_and_token_of_the_environment_in_a_fresh_process(
    hub: ConnectedServer, files: dict[str, bytes]
) -> None:
    hub.hub.create(REPO, files, private=True)
    done = subprocess.run(LOCATE, env=hub.environment(HF_TOKEN="hf_owner"), cwd=_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    asked = len(hub.requests)
    offline = hub.environment(HF_HUB_OFFLINE="1")
    again = subprocess.run(LOCATE, env=offline, cwd=_ROOT, capture_output=True, text=True)
    assert again.stdout == done.stdout != ""
    assert len(hub.requests) == asked


def test_proxy_of_the_environment_is_used(hub: ConnectedServer) -> None:
    """A client behind a proxy asks the proxy for the full address; this proxy knows nothing of it."""
    environment = hub.environment(HTTP_PROXY=hub.url, HF_ENDPOINT="http://hub.invalid")
    done = subprocess.run(LOCATE, env=environment, cwd=_ROOT, capture_output=True, text=True)
    assert "DownloadError" in done.stderr
    assert {headers.get("host") for _, _, headers in hub.requests} == {"hub.invalid"}
