"""The test server speaks the Hub's protocol: what the real client says to it means what it means on the Hub."""

from __future__ import annotations

import hashlib

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from tests.support.hub import ConnectedServer

REPO = "owner/model"
LARGE = bytes(range(256)) * 10


@pytest.fixture
def api(hub: ConnectedServer) -> HfApi:
    return HfApi(token="hf_owner")


def commit(api: HfApi, files: dict[str, bytes], **options: object) -> str:
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return api.create_commit(REPO, operations, commit_message="files", **options).oid


def test_create_commit_list_and_read(api: HfApi, hub: ConnectedServer) -> None:
    assert api.whoami()["name"] == "owner"
    assert str(api.create_repo(REPO, private=True)) == f"{hub.url}/{REPO}"
    assert api.create_repo(REPO, exist_ok=True).repo_id == REPO
    with pytest.raises(HfHubHTTPError, match="already created"):
        api.create_repo(REPO)
    oid = commit(api, {"README.md": b"---\nlicense: mit\n---\n", "a/model.safetensors": LARGE, "a/b/x.txt": b"x"})
    info = api.model_info(REPO, files_metadata=True)
    assert (info.sha, info.private) == (oid, True)
    large = next(s for s in info.siblings if s.rfilename == "a/model.safetensors")
    assert (large.size, large.lfs.sha256) == (len(LARGE), hashlib.sha256(LARGE).hexdigest())
    assert api.list_repo_files(REPO) == [".gitattributes", "README.md", "a/b/x.txt", "a/model.safetensors"]
    assert [f.path for f in api.list_repo_tree(REPO, "a")] == ["a/b", "a/model.safetensors"]
    assert api.get_paths_info(REPO, ["a/b/x.txt"])[0].size == 1
    assert [c.title for c in api.list_repo_commits(REPO)] == ["files", "initial commit"]
    assert api.file_exists(REPO, "a/b/x.txt")
    assert not api.file_exists(REPO, "none")


def test_the_same_commit_twice_makes_one(api: HfApi, hub: ConnectedServer) -> None:
    api.create_repo(REPO)
    files = {"config.json": b"{}", "model.safetensors": LARGE}
    assert commit(api, files) == commit(api, files)
    uploads = [path for path in hub.paths("PUT") if path.startswith("/lfs-store/")]
    assert len(uploads) == 1, "the server says what it has"


def test_deleting_and_racing(api: HfApi) -> None:
    api.create_repo(REPO)
    first = commit(api, {"a/x": b"1", "a/y": b"2", "z": b"3"})
    operations = [CommitOperationDelete("a/", is_folder=True), CommitOperationDelete("z")]
    api.create_commit(REPO, operations, commit_message="delete")
    assert api.list_repo_files(REPO) == [".gitattributes"]
    with pytest.raises(HfHubHTTPError, match="A commit has happened since"):
        commit(api, {"a/x": b"4"}, parent_commit=first)


def test_tags_and_branches(api: HfApi) -> None:
    api.create_repo(REPO)
    oid = commit(api, {"x": b"1"})
    api.create_tag(REPO, tag="v1", tag_message="first")
    api.create_tag(REPO, tag="v1", exist_ok=True)
    with pytest.raises(HfHubHTTPError):
        api.create_tag(REPO, tag="v1")
    api.create_branch(REPO, branch="old", revision="v1")
    commit(api, {"x": b"2"})
    refs = api.list_repo_refs(REPO)
    assert [(t.name, t.target_commit) for t in refs.tags] == [("v1", oid)]
    assert {b.name for b in refs.branches} == {"main", "old"}
    assert api.model_info(REPO, revision="v1").sha == oid
    api.delete_tag(REPO, tag="v1")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(REPO, revision="v1")


def test_collections(api: HfApi) -> None:
    collection = api.create_collection("The Zoo", description="models", exists_ok=True)
    assert api.create_collection("The Zoo", exists_ok=True).slug == collection.slug
    api.create_repo(REPO)
    api.add_collection_item(collection.slug, REPO, "model", note="a note")
    api.add_collection_item(collection.slug, REPO, "model", exists_ok=True)
    with pytest.raises(HfHubHTTPError):
        api.add_collection_item(collection.slug, REPO, "model")
    read = api.get_collection(collection.slug)
    assert [(i.item_id, i.item_type, i.note) for i in read.items] == [(REPO, "model", "a note")]
    assert [c.slug for c in api.list_collections(owner="owner")] == [collection.slug]
    assert list(api.list_collections(owner="reader")) == []
    api.delete_collection(collection.slug)
    with pytest.raises(HfHubHTTPError):
        api.get_collection(collection.slug)


def test_who_may_do_what(api: HfApi, hub: ConnectedServer) -> None:
    api.create_repo(REPO, private=True)
    reader, nobody = HfApi(token="hf_reader"), HfApi(token=False)
    for other in (reader, nobody):
        with pytest.raises(RepositoryNotFoundError):
            other.model_info(REPO)
    api.update_repo_settings(REPO, private=False)
    assert nobody.model_info(REPO).id == REPO
    for other in (reader, nobody):
        with pytest.raises(HfHubHTTPError, match=r"rights to write|Invalid username"):
            commit(other, {"x": b"1"})
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi(token="hf_forged").whoami()
    with pytest.raises(HfHubHTTPError, match="namespace 'somebody'"):
        api.create_repo("somebody/model")
    api.delete_repo(REPO)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info(REPO)


def test_a_card_with_broken_metadata_is_refused(api: HfApi) -> None:
    api.create_repo(REPO)
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        commit(api, {"README.md": b"---\nlicense: [\n---\n"})
