"""The state behind `hub_server.py`: repositories, commits, refs, large files and collections, in memory."""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass, field
from typing import Any

NOW = "2026-01-01T00:00:00.000Z"


class HubFailure(Exception):
    """An answer other than success, as the Hub gives it: status, X-Error-Code and a message."""

    def __init__(self, status: int, message: str, code: str | None = None, **extra: Any) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.extra = status, message, code, extra


@dataclass(frozen=True)
class Blob:
    """One file's content; `lfs` where it came in through the large-file store."""

    content: bytes
    lfs: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """git's id of the stored object: for large files, of the pointer file that git keeps."""
        return _git_oid(self.pointer if self.lfs else self.content)

    @property
    def pointer(self) -> bytes:
        lines = ("version https://git-lfs.github.com/spec/v1", f"oid sha256:{self.sha256}", f"size {len(self.content)}")
        return ("\n".join(lines) + "\n").encode()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid

    def describe(self, path: str) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(self.content), "oid": self.oid}
        if self.lfs:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": len(self.pointer)}
        return entry


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass(frozen=True)
class Commit:
    id: str
    parent: str | None
    title: str
    files: dict[str, Blob]


@dataclass
class Repository:
    """A model repository; `gated` asks every reader for a token, `private` hides it from those without one."""

    id: str
    private: bool = False
    gated: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.branches:
            self.commit("initial commit", {".gitattributes": Blob(b"*.safetensors filter=lfs\n")})

    def resolve(self, revision: str) -> Commit:
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        if sha not in self.commits:
            raise HubFailure(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[sha]

    def commit(
        self, title: str, changes: dict[str, Blob | None], branch: str = "main", parent: str | None = None
    ) -> Commit:
        """A new commit on `branch`: `changes` maps paths to content, or to None where the file is deleted."""
        head = self.branches.get(branch)
        if parent is not None and parent != head:
            raise HubFailure(412, "A commit has happened since. Please refresh and try again.")
        files = dict(self.commits[head].files) if head else {}
        for path, blob in changes.items():
            if blob is None:
                files.pop(path, None)
            else:
                files[path] = blob
        listing = "".join(f"{path}:{blob.oid};" for path, blob in sorted(files.items()))
        sha = hashlib.sha1(f"{self.id}|{head}|{title}|{listing}|{len(self.commits)}".encode()).hexdigest()
        self.commits[sha] = Commit(sha, head, title, files)
        self.branches[branch] = sha
        return self.commits[sha]

    def history(self, revision: str) -> list[Commit]:
        found, commit = [], self.resolve(revision)
        while True:
            found.append(commit)
            if commit.parent is None:
                return found
            commit = self.commits[commit.parent]

    def describe(self, revision: str, blobs: bool = False) -> dict[str, Any]:
        commit = self.resolve(revision)
        siblings = []
        for path, blob in sorted(commit.files.items()):
            entry: dict[str, Any] = {"rfilename": path}
            if blobs:
                entry |= {"size": len(blob.content), "blobId": blob.oid}
                if blob.lfs:
                    entry["lfs"] = {"sha256": blob.sha256, "size": len(blob.content), "pointerSize": len(blob.pointer)}
            siblings.append(entry)
        return {
            "_id": hashlib.sha1(self.id.encode()).hexdigest()[:24],
            "id": self.id,
            "modelId": self.id,
            "author": self.id.split("/")[0],
            "sha": commit.id,
            "private": self.private,
            "gated": "auto" if self.gated else False,
            "disabled": False,
            "lastModified": NOW,
            "createdAt": NOW,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": siblings,
        }


class Hub:
    """Everything the server knows. `tokens` maps a token to its user; only the owner's token may write."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large_files: dict[str, bytes] = {}
        self.collections: dict[str, dict[str, Any]] = {}
        self.tokens = {"hf_owner": "owner", "hf_reader": "reader"}
        self._ids = itertools.count(1)

    def create(self, repo_id: str, files: dict[str, bytes] | None = None, **options: Any) -> Repository:
        """A new repository, its first commit already holding `files` (*.safetensors as large files)."""
        if repo_id in self.repositories:
            raise HubFailure(409, "You already created this model repo")
        repository = self.repositories[repo_id] = Repository(repo_id, **options)
        if files:
            self.add_files(repo_id, files)
        return repository

    def add_files(self, repo_id: str, files: dict[str, bytes], title: str = "files") -> Commit:
        changes: dict[str, Blob | None] = {p: Blob(c, p.endswith(".safetensors")) for p, c in files.items()}
        return self.repositories[repo_id].commit(title, changes)

    def readable(self, repo_id: str, user: str | None, *, content: bool = False) -> Repository:
        """The repository, or the Hub's refusal; `content`: gated repositories refuse only their files."""
        repository = self.repositories.get(repo_id)
        if repository is None or (repository.private and user != repo_id.split("/")[0]):
            missing_status = 404 if user else 401
            raise HubFailure(missing_status, "Repository not found", "RepoNotFound")
        if content and repository.gated and user != repo_id.split("/")[0]:
            status, who = (403, "you are not in the authorized list") if user else (401, "you must be authenticated")
            raise HubFailure(status, f"Access to model {repo_id} is restricted: {who}.", "GatedRepo")
        return repository

    def writable(self, repo_id: str, user: str | None) -> Repository:
        if user is None:
            raise HubFailure(401, "Invalid username or password.")
        repository = self.readable(repo_id, user)
        if user != repo_id.split("/")[0]:
            raise HubFailure(403, "You don't have the rights to write to this repository")
        return repository

    def create_collection(self, title: str, namespace: str, private: bool, description: str | None) -> dict[str, Any]:
        for slug, known in self.collections.items():
            if known["title"] == title and known["owner"]["name"] == namespace:
                raise HubFailure(409, "This collection exists already", slug=slug)
        number = next(self._ids)
        slug = f"{namespace}/{re.sub(r'[^a-z0-9]+', '-', title.lower()).strip('-')}-{number:024x}"
        self.collections[slug] = {
            "slug": slug,
            "title": title,
            "description": description,
            "owner": {"name": namespace, "type": "user"},
            "items": [],
            "lastUpdated": NOW,
            "position": number,
            "private": private,
            "theme": "green",
            "upvotes": 0,
        }
        return self.collections[slug]

    def add_to_collection(self, slug: str, item: dict[str, str], note: str | None) -> dict[str, Any]:
        collection = self.collection(slug)
        if any(known["id"] == item["id"] and known["type"] == item["type"] for known in collection["items"]):
            raise HubFailure(409, "This item is in the collection already")
        entry = {"_id": f"{next(self._ids):024x}", **item, "position": len(collection["items"])}
        collection["items"].append(entry | ({"note": {"text": note, "html": note}} if note else {}))
        return collection

    def collection(self, slug: str) -> dict[str, Any]:
        if slug not in self.collections:
            raise HubFailure(404, "Collection not found")
        return self.collections[slug]
