"""Publishing on a Hub, with the real client against a real HTTP server: complete, once, and never over another."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from huggingface_hub import HfApi, ModelCard
from huggingface_hub._eval_results import parse_eval_result_entries
from huggingface_hub.errors import HfHubHTTPError

import acert_zoo
from acert_zoo.certificates.file import format_file, parse
from acert_zoo.errors import InvalidInputError, UnknownNameError
from acert_zoo.zoo import registry
from tests.support.hub import ConnectedServer
from tests.support.models import small_model
from tests.support.zoo import empty_zoo, make_data, make_run, plain_figures, snapshot, use_registry
from training import publish as module
from training.evaluate import evaluate
from training.export import export
from training.publish import publish, same_certificates
from training.results.evaluation import store_evaluation
from training.results.zoo_folder import REPOSITORY, ZooFolder

REPO = "owner/acert-cifar10-small"


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(make_data(tmp_path / "data", make_run(tmp_path / "run"), test=20))


@pytest.fixture
def zoo(tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch) -> ZooFolder:
    plain_figures(monkeypatch)
    zoo = empty_zoo(tmp_path / "zoo")
    export(tmp_path / "run", "cifar10_small", zoo=zoo, data_root=data)
    return zoo


@pytest.fixture
def api(hub: ConnectedServer) -> HfApi:
    return HfApi(endpoint=hub.url, token="hf_owner")


CERTIFY = """
import json, sys, acert_zoo
model = acert_zoo.load_model(sys.argv[1])
result = acert_zoo.certify(model, *acert_zoo.sample_data("cifar10"))
print(json.dumps({"radius": [r.hex() for r in result.radius.tolist()], "sha256": result.weights_sha256}))
"""


def test_published_models_load_in_a_fresh_process_with_identical_radii(
    hub: ConnectedServer, api: HfApi, zoo: ZooFolder, tmp_path: Path
) -> None:
    done = publish("cifar10_small", REPO, zoo=zoo, api=api)
    files = hub.hub.repositories[REPO].resolve("v1").files
    assert set(files) >= {
        "README.md",
        "config.json",
        "model.safetensors",
        "certificates.jsonl",
        "metrics.json",
        "recipe.toml",
        ".eval_results/acert-zoo.yaml",
        "tradeoff-light.png",
        "tradeoff-dark.png",
    }
    assert done.revision == hub.hub.repositories[REPO].tags["v1"]
    (info,) = registry.read_registry(zoo.registry)
    assert (info.hub.repo_id, info.hub.revision) == (REPO, done.revision)
    assert len(hub.hub.repositories[REPO].history("main")) == 2  # the Hub's first commit, and one of ours

    assert not hub.cache.exists()
    command = [sys.executable, "-c", CERTIFY, f"hf-hub:{REPO}@v1"]
    # As many threads as here: another number may sum in another order.
    environment = hub.environment(OMP_NUM_THREADS=str(torch.get_num_threads()), PYTHONPATH=str(REPOSITORY))
    there = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert there.returncode == 0, there.stderr[-2000:]
    printed = json.loads(there.stdout)
    saved = tmp_path / "certificates.jsonl"
    saved.write_bytes(files["certificates.jsonl"].content)
    certificates = acert_zoo.Certificates.load(saved)
    assert [r.hex() for r in certificates.radius.tolist()] == printed["radius"]
    assert printed["sha256"] == certificates.weights_sha256 == info.sha256
    assert len(certificates) >= 100


def test_the_files_are_valid(api: HfApi, zoo: ZooFolder, hub: ConnectedServer) -> None:
    publish("cifar10_small", REPO, zoo=zoo, api=api)
    files = {path: blob.content for path, blob in hub.hub.repositories[REPO].resolve("main").files.items()}
    card = ModelCard(files["README.md"].decode())
    card.validate()  # the Hub's own answer
    assert f"hf-hub:{REPO}" in card.text
    entries = parse_eval_result_entries(yaml.safe_load(files[".eval_results/acert-zoo.yaml"]))
    (info,) = registry.read_registry(zoo.registry)
    assert [e.value for e in entries] == [m.value for m in info.metrics]
    assert {e.dataset_id for e in entries} == {"uoft-cs/cifar10"}
    assert tomllib.loads(files["recipe.toml"].decode())["kappa"] == 0.25
    assert json.loads(files["metrics.json"])["weights_sha256"] == info.sha256
    assert files["model.safetensors"] == (zoo.package / info.file).read_bytes()


def test_publishing_twice_changes_nothing(api: HfApi, zoo: ZooFolder, hub: ConnectedServer) -> None:
    first = publish("cifar10_small", REPO, zoo=zoo, api=api)
    repository, registered = hub.hub.repositories[REPO], zoo.registry.read_bytes()
    commits, tags = dict(repository.commits), dict(repository.tags)
    hub.requests.clear()
    second = publish("cifar10_small", REPO, zoo=zoo, api=api)
    assert second.uploaded == ()
    assert second.revision == first.revision
    assert (repository.commits, repository.tags) == (commits, tags)
    assert zoo.registry.read_bytes() == registered
    assert not any("/commit/" in path or "/tag/" in path for path in hub.paths("POST"))


def test_a_publication_that_was_cut_off_is_completed(api: HfApi, zoo: ZooFolder, hub: ConnectedServer) -> None:
    hub.fail(r"/tag/", 500, method="POST")
    with pytest.raises(OSError, match="500"):
        publish("cifar10_small", REPO, zoo=zoo, api=api)
    assert registry.read_registry(zoo.registry)[0].hub is None
    hub.plans.clear()
    done = publish("cifar10_small", REPO, zoo=zoo, api=api)
    assert done.uploaded == ()  # the commit was there
    assert hub.hub.repositories[REPO].tags == {"v1": done.revision}


def test_a_changed_card_is_a_new_commit_but_the_tag_stays(api: HfApi, zoo: ZooFolder, hub: ConnectedServer) -> None:
    first = publish("cifar10_small", REPO, zoo=zoo, api=api)
    document = json.loads(zoo.registry.read_text())
    document["models"][0]["training"]["threads"] = 7
    zoo.registry.write_text(json.dumps(document))
    second = publish("cifar10_small", REPO, zoo=zoo, api=api)
    assert set(second.uploaded) == {"README.md", "config.json"}
    assert second.revision == first.revision
    assert b"7 threads" in hub.hub.repositories[REPO].resolve("main").files["README.md"].content


def test_a_new_version_gets_its_own_tag_and_the_old_one_stays_pinned(
    api: HfApi, zoo: ZooFolder, hub: ConnectedServer, tmp_path: Path, data: str
) -> None:
    first = publish("cifar10_small", REPO, zoo=zoo, api=api)
    export(make_run(tmp_path / "other", seed=1), "cifar10_small", zoo=zoo, data_root=data)
    with pytest.raises(InvalidInputError, match="newest"):
        publish("cifar10_small.v1", REPO, zoo=zoo, api=api)
    second = publish("cifar10_small", REPO, zoo=zoo, api=api)
    assert hub.hub.repositories[REPO].tags == {"v1": first.revision, "v2": second.revision}
    old, new = registry.read_registry(zoo.registry)
    assert (old.hub.revision, new.hub.revision) == (first.revision, second.revision)


def test_other_weights_under_the_versions_tag_are_refused(api: HfApi, zoo: ZooFolder, hub: ConnectedServer) -> None:
    hub.hub.create(REPO, {"model.safetensors": b"other weights"})
    api.create_tag(REPO, tag="v1")
    with pytest.raises(InvalidInputError, match="tags never move"):
        publish("cifar10_small", REPO, zoo=zoo, api=api)
    assert registry.read_registry(zoo.registry)[0].hub is None


def test_somebody_elses_commit_in_between_is_not_overwritten(
    api: HfApi, zoo: ZooFolder, hub: ConnectedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = api.list_repo_tree

    def slow_listing(repo_id: str, **options: object):
        entries = list(listing(repo_id, **options))
        hub.hub.add_files(repo_id, {"README.md": b"theirs"})
        return entries

    monkeypatch.setattr(api, "list_repo_tree", slow_listing)
    with pytest.raises(HfHubHTTPError, match="412"):
        publish("cifar10_small", REPO, zoo=zoo, api=api)
    assert hub.hub.repositories[REPO].resolve("main").files["README.md"].content == b"theirs"
    assert hub.hub.repositories[REPO].tags == {}


def test_a_dry_run_sends_nothing(hub: ConnectedServer, zoo: ZooFolder) -> None:
    before = snapshot(zoo.root)
    arguments = ["cifar10_small", "--repo", REPO, "--dry-run", "--root", str(zoo.root)]
    result = CliRunner().invoke(module.main, arguments)
    assert result.exit_code == 0, result.output
    assert "model.safetensors" in result.output
    assert "nothing is sent" in result.output
    assert hub.requests == []
    assert snapshot(zoo.root) == before


def test_the_whole_zoo_and_its_collection(
    hub: ConnectedServer, zoo: ZooFolder, tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(make_run(tmp_path / "b", seed=2, kappa=0.5), "cifar10_other", zoo=zoo, data_root=data)
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    arguments = ["--all", "--owner", "owner", "--private", "--root", str(zoo.root)]
    for _ in range(2):
        result = CliRunner().invoke(module.main, arguments)
        assert result.exit_code == 0, result.output
    assert result.output.count("nothing to do") == 2
    assert set(hub.hub.repositories) == {REPO, "owner/acert-cifar10-other"}
    assert all(r.private for r in hub.hub.repositories.values())
    (collection,) = hub.hub.collections.values()
    assert [item["id"] for item in collection["items"]] == ["owner/acert-cifar10-other", REPO]
    assert f"hf-hub:{REPO}" in (zoo.cards / "cifar10_small.md").read_text()


def test_a_cascade_is_published_with_its_stages(
    hub: ConnectedServer, api: HfApi, zoo: ZooFolder, tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(make_run(tmp_path / "b", seed=2, kappa=0.5), "cifar10_other", zoo=zoo, data_root=data)
    use_registry(monkeypatch, zoo)
    members = [acert_zoo.load_model(name) for name in ("cifar10_small", "cifar10_other")]
    cascade = acert_zoo.Cascade(members, ["1/2550"]).eval()
    path = zoo.package / "checkpoints" / "cifar10_cascade.v1.json"
    sha256, size = cascade.save(path)
    result = evaluate(
        cascade, "cifar10", name="cifar10_cascade", version=1, weights_sha256=sha256, eps_max="8.8/255", data_root=data
    )
    store_evaluation(zoo, result)
    record = {
        "name": "cifar10_cascade",
        "kind": "cascade",
        "arch": "cascade",
        "arch_kwargs": {},
        "dataset": "cifar10",
        "method": "cascade",
        "eps_max": "8.8/255",
        "file": "checkpoints/cifar10_cascade.v1.json",
        "sha256": sha256,
        "size": size,
        "parameters": sum(p.numel() for p in cascade.parameters()),
        "metrics": result.metrics(),
        "license": "Apache-2.0",
    }
    registry.add_record(zoo.registry, record)
    done = publish("cifar10_cascade", "owner/cascade", zoo=zoo, api=api)
    assert "cascade.json" in done.uploaded
    assert "model.safetensors" not in done.uploaded
    card = hub.hub.repositories["owner/cascade"].resolve("main").files["README.md"].content.decode()
    assert "| 1 | `cifar10_small.v1` | its own prediction is proved at radius 1/2550 |" in card
    again = acert_zoo.load_model("hf-hub:owner/cascade")
    images, _ = acert_zoo.sample_data("cifar10", n=10)
    assert torch.equal(again(images), cascade(images))


@pytest.mark.parametrize("token", [None, "hf_reader"])
def test_without_the_right_token_there_is_one_clear_error(
    hub: ConnectedServer, zoo: ZooFolder, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    result = CliRunner().invoke(module.main, ["cifar10_small", "--repo", REPO, "--root", str(zoo.root)])
    assert result.exit_code == 2
    assert result.output.startswith("error: ")
    assert "Traceback" not in result.output
    assert not hub.hub.repositories


@pytest.mark.parametrize(
    "arguments", [[], ["x"], ["--all"], ["x", "--all", "--owner", "y"], ["x", "--repo", "a/b", "--owner", "y"]]
)
def test_usage(arguments: list[str]) -> None:
    assert CliRunner().invoke(module.main, arguments).exit_code == 2


def test_unknown_names_and_impossible_repositories(zoo: ZooFolder, hub: ConnectedServer, api: HfApi) -> None:
    with pytest.raises(UnknownNameError, match="cifar10_small"):
        publish("cifar10_smal", REPO, zoo=zoo, api=api)
    with pytest.raises(InvalidInputError, match="owner/name"):
        publish("cifar10_small", "no-owner", zoo=zoo, api=api)
    assert hub.requests == []


def test_equal_certifications_differ_in_times_only(tmp_path: Path) -> None:
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    acert_zoo.certify(small_model(), images).save(tmp_path / "a.jsonl")
    content = (tmp_path / "a.jsonl").read_bytes()
    file = parse(content)
    later = replace(file.header, created="2030-01-01T00:00:00+00:00")
    slower = [replace(line, seconds=line.seconds + 1) for line in file.lines]
    assert same_certificates(content, format_file(later, slower))
    assert not same_certificates(content, content[:-20])
    index = next(i for i, line in enumerate(file.lines) if float(line.radius) > 0)
    changed = list(file.lines)
    changed[index] = replace(changed[index], radius=repr(float(changed[index].radius) * 0.99))
    assert not same_certificates(content, format_file(file.header, changed))
    assert not same_certificates(content, format_file(replace(file.header, weights_sha256="0" * 64), file.lines))
