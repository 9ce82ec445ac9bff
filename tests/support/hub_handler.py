"""The requests that `tests/support/hub_server.py` answers: one method for each endpoint of the Hub."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.support.hub_repositories import NOW, Blob, Hub, HubFailure, Repository

if TYPE_CHECKING:
    from tests.support.hub_server import HubServer

LARGE = (".safetensors", ".bin")


@dataclass
class Plan:
    """What shall happen to the next `times` requests that match."""

    pattern: str
    method: str | None
    times: int
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    alter: Callable[[bytes], bytes] | None = None


_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
_ROUTES: list[tuple[str, str, str]] = [
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/validate-yaml", "validate_yaml"),
    ("POST", r"/api/repos/create", "create_repo"),
    ("DELETE", r"/api/repos/delete", "delete_repo"),
    ("GET", r"/api/collections", "list_collections"),
    ("POST", r"/api/collections", "create_collection"),
    ("GET", r"/api/collections/(?P<slug>[^/]+/[^/]+)", "get_collection"),
    ("DELETE", r"/api/collections/(?P<slug>[^/]+/[^/]+)", "delete_collection"),
    ("POST", r"/api/collections/(?P<slug>[^/]+/[^/]+)/items", "add_collection_item"),
    ("GET", rf"/api/models/{_REPO}", "repo_info"),
    ("GET", rf"/api/models/{_REPO}/revision/(?P<revision>[^/]+)", "repo_info"),
    ("GET", rf"/api/models/{_REPO}/refs", "refs"),
    ("GET", rf"/api/models/{_REPO}/commits/(?P<revision>[^/]+)", "commits"),
    ("GET", rf"/api/models/{_REPO}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.*))?", "tree"),
    ("POST", rf"/api/models/{_REPO}/paths-info/(?P<revision>[^/]+)", "paths_info"),
    ("POST", rf"/api/models/{_REPO}/tag/(?P<revision>[^/]+)", "create_tag"),
    ("DELETE", rf"/api/models/{_REPO}/tag/(?P<tag>[^/]+)", "delete_tag"),
    ("POST", rf"/api/models/{_REPO}/branch/(?P<branch>[^/]+)", "create_branch"),
    ("PUT", rf"/api/models/{_REPO}/settings", "settings"),
    ("POST", rf"/api/models/{_REPO}/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", rf"/api/models/{_REPO}/commit/(?P<branch>[^/]+)", "commit"),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", r"/lfs-store/(?P<oid>[0-9a-f]{64})", "lfs_put"),
    ("POST", rf"/{_REPO}/lfs-verify", "lfs_verify"),
    ("GET", rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
]


class Handler(BaseHTTPRequestHandler):
    owner: HubServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urlsplit(self.path)
        self.query = parse_qs(address.query)
        method = "GET" if self.command == "HEAD" else self.command
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.owner.requests.append((self.command, address.path, headers))
        self.plan = self.owner.plan_for(self.command, address.path)
        try:
            if self.plan is not None and self.plan.status is not None:
                self._send(self.plan.status, b"", self.plan.headers)
                return
            for verb, pattern, name in _ROUTES:
                match = re.fullmatch(pattern, address.path)
                if verb == method and match:
                    values = {k: unquote(v) for k, v in match.groupdict().items() if v is not None}
                    with self.owner.lock:
                        answer = getattr(self, "_" + name)(**values)
                    if answer is not None:
                        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})
                    return
            raise HubFailure(404, f"no such endpoint: {method} {address.path}")
        except HubFailure as failure:
            headers = {"X-Error-Message": failure.message, "Content-Type": "application/json"}
            if failure.code:
                headers["X-Error-Code"] = failure.code
            self._send(failure.status, json.dumps({"error": failure.message, **failure.extra}).encode(), headers)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        plan = self.plan
        if plan is not None and plan.status is None and plan.headers:
            headers = {k: v for k, v in headers.items() if k.lower() not in map(str.lower, plan.headers)} | plan.headers
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if plan is not None and plan.alter is not None:
            content = plan.alter(content)
        if plan is not None and plan.cut_after is not None and plan.cut_after < len(content):
            self.wfile.write(content[: plan.cut_after])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
            return
        self.wfile.write(content)

    @property
    def hub(self) -> Hub:
        return self.owner.hub

    @property
    def user(self) -> str | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.tokens:
            raise HubFailure(401, "Invalid credentials in Authorization header")
        return self.hub.tokens.get(token)

    def _json(self) -> Any:
        return json.loads(self.body)

    def _writer(self) -> str:
        user = self.user
        if user is None:
            raise HubFailure(401, "Invalid username or password.")
        return user

    def _whoami(self) -> dict[str, Any]:
        return {"type": "user", "name": self._writer(), "fullname": self._writer(), "orgs": []}

    def _validate_yaml(self) -> dict[str, Any]:
        front = re.match(r"---\s*\n(.*?)\n---", self._json()["content"], re.DOTALL)
        try:
            data = yaml.safe_load(front[1]) if front else None
            message = None if data is None or isinstance(data, dict) else "metadata is not a mapping"
        except yaml.YAMLError as error:
            message = str(error)
        if message:
            raise HubFailure(400, "invalid metadata", errors=[{"message": message}], warnings=[])
        return {"errors": [], "warnings": [] if data else [{"message": "empty or missing yaml metadata in repo card"}]}

    def _create_repo(self) -> dict[str, Any]:
        user, values = self._writer(), self._json()
        owner = values.get("organization") or user
        if owner != user:
            raise HubFailure(403, f"You don't have the rights to create a model under the namespace {owner!r}")
        repo_id = f"{owner}/{values['name']}"
        url = f"{self.owner.url}/{repo_id}"
        if repo_id in self.hub.repositories:
            raise HubFailure(409, "You already created this model repo", url=url, name=repo_id)
        self.hub.create(repo_id, private=values.get("visibility") == "private" or bool(values.get("private")))
        return {"url": url, "name": repo_id}

    def _delete_repo(self) -> dict[str, Any]:
        values = self._json()
        repo_id = f"{values.get('organization') or self._writer()}/{values['name']}"
        self.hub.writable(repo_id, self.user)
        del self.hub.repositories[repo_id]
        return {}

    def _settings(self, repo: str) -> dict[str, Any]:
        repository, values = self.hub.writable(repo, self.user), self._json()
        repository.private = values.get("visibility", "private" if repository.private else "public") == "private"
        repository.gated = bool(values.get("gated", repository.gated))
        return {"private": repository.private}

    def _repo_info(self, repo: str, revision: str = "main") -> dict[str, Any]:
        return self.hub.readable(repo, self.user).describe(revision, blobs="blobs" in self.query)

    def _refs(self, repo: str) -> dict[str, Any]:
        repository = self.hub.readable(repo, self.user)
        kinds = {"branches": ("heads", repository.branches), "tags": ("tags", repository.tags)}
        listed = {
            kind: [{"name": n, "ref": f"refs/{folder}/{n}", "targetCommit": sha} for n, sha in refs.items()]
            for kind, (folder, refs) in kinds.items()
        }
        return {**listed, "converts": [], "pullRequests": []}

    def _commits(self, repo: str, revision: str) -> list[dict[str, Any]]:
        history = self.hub.readable(repo, self.user).history(revision)
        author = [{"user": repo.split("/")[0]}]
        return [{"id": c.id, "title": c.title, "message": "", "authors": author, "date": NOW} for c in history]

    def _tree(self, repo: str, revision: str, folder: str = "") -> list[dict[str, Any]]:
        files = self.hub.readable(repo, self.user, content=True).resolve(revision).files
        prefix = f"{folder}/" if folder else ""
        recursive = self.query.get("recursive", [""])[0].lower() == "true"
        entries, folders = [], set()
        for path, blob in sorted(files.items()):
            if path.startswith(prefix):
                parents = path[len(prefix) :].split("/")[:-1]
                folders |= {prefix + "/".join(parents[: i + 1]) for i in range(len(parents))}
                if recursive or not parents:
                    entries.append(blob.describe(path))
        shown = [f for f in sorted(folders) if recursive or "/" not in f[len(prefix) :]]
        return [{"type": "directory", "path": f, "oid": "0" * 40, "size": 0} for f in shown] + entries

    def _paths_info(self, repo: str, revision: str) -> list[dict[str, Any]]:
        files = self.hub.readable(repo, self.user).resolve(revision).files
        wanted = parse_qs(self.body.decode()).get("paths", [])
        return [files[path].describe(path) for path in wanted if path in files]

    def _create_tag(self, repo: str, revision: str) -> dict[str, Any]:
        return self._add_ref(self.hub.writable(repo, self.user), "tags", self._json()["tag"], revision)

    def _create_branch(self, repo: str, branch: str) -> dict[str, Any]:
        start = (self._json() if self.body else {}).get("startingPoint", "main")
        return self._add_ref(self.hub.writable(repo, self.user), "branches", branch, start)

    def _add_ref(self, repository: Repository, kind: str, name: str, revision: str) -> dict[str, Any]:
        refs = getattr(repository, kind)
        if name in refs:
            raise HubFailure(409, f"Reference {name} exists already")
        refs[name] = repository.resolve(revision).id
        return {}

    def _delete_tag(self, repo: str, tag: str) -> dict[str, Any]:
        if self.hub.writable(repo, self.user).tags.pop(tag, None) is None:
            raise HubFailure(404, "Tag not found", "RevisionNotFound")
        return {}

    def _preupload(self, repo: str, revision: str) -> dict[str, Any]:
        files = self.hub.writable(repo, self.user).resolve(revision).files
        answers = []
        for item in self._json()["files"]:
            old = files.get(item["path"])
            answer = {"path": item["path"], "shouldIgnore": False}
            answer["uploadMode"] = "lfs" if item["path"].endswith(LARGE) else "regular"
            if old is not None:
                answer["oid"] = old.sha256 if old.lfs else old.oid
            answers.append(answer)
        return {"files": answers}

    def _commit(self, repo: str, branch: str) -> dict[str, Any]:
        repository = self.hub.writable(repo, self.user)
        header, changes = {"summary": ""}, dict[str, Blob | None]()
        for line in self.body.splitlines():
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            if key == "header":
                header = value
            elif key == "file":
                changes[value["path"]] = Blob(base64.b64decode(value["content"]))
            elif key == "lfsFile":
                if value["oid"] not in self.hub.large_files:
                    raise HubFailure(400, f"large file {value['oid']} was not uploaded")
                changes[value["path"]] = Blob(self.hub.large_files[value["oid"]], lfs=True)
            elif key == "deletedFile":
                changes[value["path"]] = None
            elif key == "deletedFolder":
                folder = value["path"].rstrip("/") + "/"
                changes |= {p: None for p in repository.resolve(branch).files if p.startswith(folder)}
            else:
                raise HubFailure(400, f"unknown operation {key}")
        repository.resolve(branch)
        commit = repository.commit(header["summary"], changes, branch, header.get("parentCommit"))
        url = f"{self.owner.url}/{repo}/commit/{commit.id}"
        return {"success": True, "commitOid": commit.id, "commitUrl": url, "hookOutput": ""}

    def _lfs_batch(self, repo: str) -> dict[str, Any]:
        self.hub.writable(repo, self.user)
        objects = []
        for item in self._json()["objects"]:
            answer: dict[str, Any] = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.large_files:
                upload = {"href": f"{self.owner.url}/lfs-store/{item['oid']}"}
                answer["actions"] = {"upload": upload, "verify": {"href": f"{self.owner.url}/{repo}/lfs-verify"}}
            objects.append(answer)
        return {"transfer": "basic", "objects": objects}

    def _lfs_put(self, oid: str) -> dict[str, Any]:
        if Blob(self.body).sha256 != oid:
            raise HubFailure(400, "the uploaded bytes do not have the announced digest")
        self.hub.large_files[oid] = self.body
        return {}

    def _lfs_verify(self, repo: str) -> dict[str, Any]:
        values = self._json()
        if len(self.hub.large_files.get(values["oid"], b"")) != values["size"]:
            raise HubFailure(404, "the large file is not there, or has another size")
        return {}

    def _resolve(self, repo: str, revision: str, path: str) -> None:
        commit = self.hub.readable(repo, self.user, content=True).resolve(revision)
        if path not in commit.files:
            self.plan = Plan("", None, 0, headers={"X-Repo-Commit": commit.id})
            raise HubFailure(404, "Entry not found", "EntryNotFound")
        blob = commit.files[path]
        headers = {"X-Repo-Commit": commit.id, "ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes"}
        if blob.lfs:
            headers |= {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.content))}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted:
            start, total = int(wanted[1]), len(blob.content)
            self._send(206, blob.content[start:], headers | {"Content-Range": f"bytes {start}-{total - 1}/{total}"})
        else:
            self._send(200, blob.content, headers)

    def _list_collections(self) -> list[dict[str, Any]]:
        owners = self.query.get("owner")
        found = [c for c in self.hub.collections.values() if not owners or c["owner"]["name"] in owners]
        return [{key: value for key, value in c.items() if key != "position"} for c in found]

    def _create_collection(self) -> dict[str, Any]:
        user, values = self._writer(), self._json()
        if values["namespace"] != user:
            raise HubFailure(403, "You don't have the rights to create a collection there")
        return self.hub.create_collection(values["title"], user, values["private"], values.get("description"))

    def _get_collection(self, slug: str) -> dict[str, Any]:
        return self.hub.collection(slug)

    def _delete_collection(self, slug: str) -> dict[str, Any]:
        self._writer()
        self.hub.collection(slug)
        del self.hub.collections[slug]
        return {}

    def _add_collection_item(self, slug: str) -> dict[str, Any]:
        self._writer()
        values = self._json()
        return self.hub.add_to_collection(slug, values["item"], values.get("note"))
