"""Publishes zoo models on the Hugging Face Hub: python training/publish.py NAME --repo owner/acert-cifar10-kappa025.

One commit holds card, config.json, weights, certificates of the bundled test images, recipe, metrics and figure; the
tag vN names the version for ever, and its commit goes into the registry as the pinned revision. What is there already
is not uploaded again: running it twice changes nothing, and a publication that was cut off is completed. Token and
endpoint are huggingface_hub's own (`hf auth login`, HF_TOKEN, HF_ENDPOINT).
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import click
import yaml
from huggingface_hub import CommitOperationAdd, EvalResultEntry, HfApi, eval_result_entries_to_yaml
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.hf_api import RepoFile

from acert_zoo.certificates import file
from acert_zoo.certificates.lines import Line
from acert_zoo.data.registration import dataset_info
from acert_zoo.errors import AcertZooError, CertificateFileError, InvalidInputError, UnknownNameError
from acert_zoo.zoo import registry, resolve, weights
from acert_zoo.zoo.model_info import ModelInfo
from training.report import cards, tradeoff
from training.report.card_training import recipe_toml
from training.report.figure_style import THEMES
from training.report.figures import digest, draw
from training.results.evaluation import RADIUS_ATOL, RADIUS_RTOL
from training.results.zoo_folder import ZooFolder, dump_json

CERTIFICATES = "certificates.jsonl"
FIGURE = "tradeoff"
EVAL_RESULTS = ".eval_results/acert-zoo.yaml"
COLLECTION = "acert-zoo: classifiers with proved robustness"
COLLECTION_ABOUT = "Image classifiers whose l-inf robustness is proved per image; load them with the acert-zoo package."


def find(zoo: ZooFolder, name: str) -> ModelInfo:
    """The newest registered version of `name`; an older one cannot be published over it."""
    groups = {versions[-1].name: versions for _, versions in cards.newest(zoo)}
    for versions in groups.values():
        for info in versions:
            if name in (info.name, info.versioned_name):
                if name == info.versioned_name and info is not versions[-1]:
                    raise InvalidInputError(f"{name} is not the newest version of {info.name}; publish {info.name}")
                return versions[-1]
    raise UnknownNameError.near("model", name, groups)


def eval_results(info: ModelInfo) -> str:
    """The metrics in the Hub's `.eval_results` format."""
    entries = [
        EvalResultEntry(
            dataset_id=dataset_info(str(info.dataset)).hub_id or str(info.dataset),
            task_id=m.metric if m.eps is None else f"{m.metric}_linf_{m.eps.replace('/', '_')}",
            value=m.value,
            notes=", ".join(
                part for part in (f"n={m.n}", f"unit={m.unit}", m.method and f"bound={m.method}", m.rounding) if part
            ),
        )
        for m in info.metrics
    ]
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)


def certificates(config: bytes, content: bytes, kind: str, dataset: str) -> bytes:
    """Certificates of the bundled test images, from the very bytes that are published."""
    from acert_zoo.certificates.certify import certify
    from acert_zoo.data.samples import sample_data
    from acert_zoo.zoo.load import load_model

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / resolve.CONFIG_NAME).write_bytes(config)
        (Path(folder) / _weights_name(kind)).write_bytes(content)
        result = certify(load_model(folder), *sample_data(dataset))
        result.save(Path(folder) / CERTIFICATES)
        return (Path(folder) / CERTIFICATES).read_bytes()


def _weights_name(kind: str) -> str:
    return resolve.CASCADE_NAME if kind == "cascade" else resolve.WEIGHTS_NAME


def build_files(zoo: ZooFolder, info: ModelInfo, repo_id: str) -> dict[str, bytes]:
    """Every file of the repository: path -> content. The weights are checked against the registry's digest."""
    content = weights.read_verified(zoo.package / str(info.file), info.sha256, info.size)
    config = resolve.format_config(info).encode()
    points = tradeoff.registry_points(zoo).get(str(info.dataset), [])
    marked = any(p.name == info.name for p in points)
    versions = next(v for newest, v in cards.newest(zoo) if newest.name == info.name)
    card = cards.card(zoo, info, versions, figure=FIGURE if marked else None, figure_form="png", repo_id=repo_id)
    files = {
        "README.md": card.encode(),
        resolve.CONFIG_NAME: config,
        _weights_name(info.kind): content,
        CERTIFICATES: certificates(config, content, info.kind, str(info.dataset)),
        "metrics.json": _metrics(zoo, info),
        EVAL_RESULTS: eval_results(info).encode(),
    }
    if info.recipe:
        files["recipe.toml"] = recipe_toml(info.recipe).encode()
    for theme in THEMES if marked else ():
        files[f"{FIGURE}-{theme}.png"] = draw("tradeoff", points, theme, info.name, "png")
    return files


def _metrics(zoo: ZooFolder, info: ModelInfo) -> bytes:
    path = zoo.evaluation(info.name, info.version)
    if path.is_file():
        return path.read_bytes()
    return dump_json({"name": info.name, "version": info.version, "metrics": info.to_dict()["metrics"]}).encode()


def same_certificates(one: bytes, other: bytes) -> bool:
    """Whether two certificate files say the same, but for when and how fast they were made (radii to 1e-5)."""
    try:
        a, b = file.parse(one), file.parse(other)
    except CertificateFileError:
        return False
    if a.header.differences(b.header) or len(a.lines) != len(b.lines):
        return False

    def rest(line: Line) -> Line:
        return replace(line, seconds=0.0, margin=1.0, radius="0.0")

    return all(
        math.isclose(float(x.radius), float(y.radius), rel_tol=RADIUS_RTOL, abs_tol=RADIUS_ATOL) and rest(x) == rest(y)
        for x, y in zip(a.lines, b.lines, strict=True)
    )


def _is_current(content: bytes, entry: RepoFile | None) -> bool:
    if entry is None:
        return False
    if entry.lfs is not None:
        return bool(entry.lfs.sha256 == hashlib.sha256(content).hexdigest())
    return bool(entry.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest())


@dataclass(frozen=True)
class Published:
    """Where a model is now: the tag's commit, and the paths that this publication had to upload."""

    info: ModelInfo
    repo_id: str
    tag: str
    revision: str
    uploaded: tuple[str, ...]


def publish(
    name: str, repo_id: str, *, zoo: ZooFolder | None = None, private: bool | None = None, api: HfApi | None = None
) -> Published:
    """Brings the repository `repo_id` to the registered state of `name`; see the module's docstring.

    Raises:
        UnknownNameError: no such model. InvalidInputError: the tag exists with other weights.
        HfHubHTTPError, OSError: the Hub refuses or cannot be reached; what was committed stays, and running again
            completes it.
    """
    zoo, api = zoo or ZooFolder(), api or HfApi(library_name="acert-zoo")
    info = find(zoo, name)
    registry.HubLocation(repo_id, "0" * 40)  # a repository id that the registry would refuse is refused now
    files = build_files(zoo, info, repo_id)
    api.create_repo(repo_id, private=private, exist_ok=True)
    tag, weights_name = f"v{info.version}", _weights_name(info.kind)
    tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo_id).tags}
    if tag in tags:
        _check_tag(api, repo_id, tags[tag], weights_name, files[weights_name])
    head = str(api.repo_info(repo_id).sha)
    remote = {f.path: f for f in api.list_repo_tree(repo_id, recursive=True, revision=head) if isinstance(f, RepoFile)}
    changed = {p: c for p, c in files.items() if not _is_current(c, remote.get(p))}
    changed = {p: c for p, c in changed.items() if not _equivalent(api, zoo, info, repo_id, head, remote, p, c)}
    if changed:
        operations = [CommitOperationAdd(path, content) for path, content in sorted(changed.items())]
        message = f"{info.versioned_name} (acert-zoo)"
        head = api.create_commit(repo_id, operations, commit_message=message, parent_commit=head).oid
    if tag not in tags:
        api.create_tag(repo_id, tag=tag, revision=head)
    revision = tags.get(tag, head)
    info = registry.set_hub(zoo.registry, info.versioned_name, repo_id, revision)
    return Published(info, repo_id, tag, revision, tuple(sorted(changed)))


def _check_tag(api: HfApi, repo_id: str, revision: str, path: str, content: bytes) -> None:
    found = [f for f in api.get_paths_info(repo_id, [path], revision=revision) if isinstance(f, RepoFile)]
    if not found or not _is_current(content, found[0]):
        raise InvalidInputError(
            f"{repo_id} has other weights under this version's tag (commit {revision}); tags never move: export the "
            "weights as a new version, or name another repository"
        )


def _equivalent(
    api: HfApi,
    zoo: ZooFolder,
    info: ModelInfo,
    repo_id: str,
    head: str,
    remote: Mapping[str, RepoFile],
    path: str,
    content: bytes,
) -> bool:
    """Whether the repository's file says the same in other bytes (certificates: times; figures: another renderer)."""
    if path not in remote or not (path == CERTIFICATES or path.endswith(".png")):
        return False
    there = Path(api.hf_hub_download(repo_id, path, revision=head)).read_bytes()
    if path == CERTIFICATES:
        return same_certificates(there, content)
    theme = path.removeprefix(f"{FIGURE}-").removesuffix(".png")
    points = tradeoff.registry_points(zoo).get(str(info.dataset), [])
    return digest("tradeoff", points, theme, info.name).encode() in there


def repository_name(owner: str, name: str) -> str:
    return f"{owner}/acert-{name.replace('_', '-')}"


def publish_collection(owner: str, repo_ids: Mapping[str, str], *, private: bool, api: HfApi) -> str:
    """A collection of the repositories (model name -> id), made or completed; returns its slug."""
    known = api.create_collection(
        COLLECTION, namespace=owner, description=COLLECTION_ABOUT, private=private, exists_ok=True
    )
    present = {item.item_id for item in api.get_collection(known.slug).items}
    for repo_id in repo_ids.values():
        if repo_id not in present:
            api.add_collection_item(known.slug, item_id=repo_id, item_type="model", exists_ok=True)
    return str(known.slug)


def _dry_run(zoo: ZooFolder, name: str, repo_id: str, say: Callable[[str], None]) -> None:
    info = find(zoo, name)
    say(f"{info.versioned_name} -> {repo_id}, tag v{info.version} (nothing is sent)")
    for path, content in sorted(build_files(zoo, info, repo_id).items()):
        say(f"  {len(content):>10,}  {hashlib.sha256(content).hexdigest()[:16]}  {path}")


@click.command()
@click.argument("name", required=False)
@click.option("--repo", "repo_id", help="Repository, e.g. owner/acert-cifar10-kappa025.")
@click.option("--all", "everything", is_flag=True, help="Publish every model, and a collection of them (with --owner).")
@click.option("--owner", help="User or organisation for --all; repositories are OWNER/acert-NAME.")
@click.option("--private", is_flag=True, default=None, help="Make new repositories private.")
@click.option("--dry-run", is_flag=True, help="Build and list the files; send nothing.")
@click.option("--root", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Checkout to publish from.")
def main(
    name: str | None,
    repo_id: str | None,
    everything: bool,
    owner: str | None,
    private: bool | None,
    dry_run: bool,
    root: Path | None,
) -> None:
    """Publish the model NAME, or the whole zoo, on the Hugging Face Hub."""
    if everything != (owner is not None) or everything == (name is not None) or (name is None) != (repo_id is None):
        raise click.UsageError("give NAME --repo OWNER/REPOSITORY, or --all --owner OWNER")
    zoo, api = ZooFolder(root) if root else ZooFolder(), HfApi(library_name="acert-zoo")
    try:
        names = [info.name for info, _ in cards.newest(zoo)] if everything else [str(name)]
        targets = {n: repository_name(str(owner), n) for n in names} if everything else {names[0]: str(repo_id)}
        for model, target in targets.items():
            if dry_run:
                _dry_run(zoo, model, target, click.echo)
                continue
            done = publish(model, target, zoo=zoo, private=private, api=api)
            what = f"uploaded {len(done.uploaded)} files" if done.uploaded else "nothing to do"
            click.echo(f"{done.info.versioned_name}  {done.repo_id}@{done.revision}  tag {done.tag}  {what}")
        if everything and not dry_run:
            slug = publish_collection(str(owner), targets, private=bool(private), api=api)
            click.echo(f"collection {slug}")
        if not dry_run:
            cards.render_all(zoo)
    except (AcertZooError, HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        click.echo(f"error: {str(error).strip() or type(error).__name__}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
