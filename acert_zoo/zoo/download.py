"""One file of a Hub repository, through huggingface_hub's own cache: the only place that speaks to the network.

huggingface_hub keeps its usual promises (HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE, proxies, tokens, an atomic cache shared
by processes, continuing a connection that broke). Added here: answers of 429 and 5xx and broken transfers are tried
again with growing pauses wherever the client gives up at once, and each failure becomes one error that says what to do.
"""

from __future__ import annotations

import errno
import functools
import inspect
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from acert_zoo.errors import DownloadError, InvalidInputError, MissingDependencyError

ATTEMPTS = 4
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NO_REVISION = re.compile(r"/|.*(\.\.|[\\:\0])|$", re.DOTALL)  # what git refuses as well


def check_repo_id(repo_id: str) -> str:
    """`repo_id` itself where it has the form owner/name."""
    if not isinstance(repo_id, str) or not _REPO.fullmatch(repo_id) or ".." in repo_id or "--" in repo_id:
        raise InvalidInputError(f"Hub repository {repo_id!r}: expected owner/name")
    return repo_id


def check_revision(revision: str) -> str:
    """`revision` itself where it can name a branch, tag or commit; its file in the cache has that name."""
    if not isinstance(revision, str) or _NO_REVISION.match(revision):
        raise InvalidInputError(f"Hub revision {revision!r}: expected a branch, tag or commit id")
    return revision


@dataclass(frozen=True)
class DownloadOptions:
    """How files are fetched; the fields are `acert_zoo.load_model`'s arguments of the same names."""

    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool = False
    force_download: bool = False
    token: str | bool | None = None
    progress: bool = True


DEFAULT_OPTIONS = DownloadOptions()


def download(
    repo_id: str, filename: str, revision: str | None = None, options: DownloadOptions = DEFAULT_OPTIONS
) -> Path:
    """The path in huggingface_hub's cache of one file, downloaded first where it is not there.

    A commit id as revision that is in the cache costs no request.

    Raises:
        DownloadError: it can neither be found in the cache nor downloaded; the message gives the reason and a remedy.
        MissingDependencyError: huggingface_hub is not installed.
    """
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise MissingDependencyError(
            "models on the Hugging Face Hub need huggingface_hub: pip install huggingface_hub"
        ) from error
    check_repo_id(repo_id)
    if revision is not None:
        check_revision(revision)
    what = f"{repo_id}@{revision or 'main'}: {filename}"
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _one_error(what), _progress_bars(options.progress), _plain_names(what):
                path = hf_hub_download(
                    repo_id,
                    filename,
                    revision=revision,
                    cache_dir=None if options.cache_dir is None else Path(options.cache_dir),
                    local_files_only=options.local_files_only,
                    force_download=options.force_download,
                    token=options.token,
                    library_name="acert-zoo",
                )
            break
        except _TryAgain as failure:
            if attempt == ATTEMPTS:
                raise DownloadError(f"{failure} ({ATTEMPTS} attempts)") from failure.__cause__
            time.sleep(min(2**attempt / 2, 8))
    return _inside_cache(Path(path), options.cache_dir)


_asking: ContextVar[str | None] = ContextVar("asking", default=None)


@contextmanager
def _plain_names(what: str) -> Iterator[None]:
    """Refuses answers whose etag or commit id is a path: huggingface_hub names files of its cache after them, so that a
    hostile endpoint could write anywhere (seen with huggingface_hub 2.4). Checking the path that the client returns
    would come too late: by then the file is written. Asking for the names beforehand would not do either, since the
    endpoint may answer otherwise the second time."""
    _watch_metadata()
    token = _asking.set(what)
    try:
        yield
    finally:
        _asking.reset(token)


def _watch_metadata() -> None:
    """Puts the check where huggingface_hub learns the two names: a hook on its HTTP client would be lost with the
    client, which is replaced after a failed connection. Callers other than `download` notice nothing."""
    from huggingface_hub import file_download

    ask = file_download.get_hf_file_metadata
    if hasattr(ask, "checks_names"):
        return

    @functools.wraps(ask)
    def ask_and_check(*arguments: Any, **options: Any) -> Any:
        metadata = ask(*arguments, **options)
        what = _asking.get()
        for name, value in (("etag", metadata.etag), ("commit id", metadata.commit_hash)):
            if what is not None and value is not None and not _is_file_name(value):
                raise DownloadError(f"{what}: the endpoint answers with {name} {value!r}, which is a path; not trusted")
        return metadata

    ask_and_check.checks_names = True  # type: ignore[attr-defined]
    file_download.get_hf_file_metadata = ask_and_check


def _is_file_name(value: str) -> bool:
    return value not in ("", ".", "..") and PurePath(value).name == value and "\\" not in value and "\0" not in value


@contextmanager
def _progress_bars(shown: bool) -> Iterator[None]:
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if shown or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


class _TryAgain(Exception):
    """A failure that may pass."""


@contextmanager
def _one_error(what: str) -> Iterator[None]:
    """Turns the client's many errors into DownloadError, or _TryAgain where another attempt may help."""
    from huggingface_hub import errors as hub

    try:
        yield
    except hub.GatedRepoError as error:
        raise DownloadError(
            f"{what}: access is gated: ask for it on the repository's page, then log in (hf auth login, or token=...)"
        ) from error
    except hub.RepositoryNotFoundError as error:
        raise DownloadError(
            f"{what}: the Hub has no such repository, or it is private: check the name, or log in (hf auth login)"
        ) from error
    except hub.RevisionNotFoundError as error:
        raise DownloadError(f"{what}: the repository has no such revision") from error
    except hub.LocalEntryNotFoundError as error:
        raise _absent(what, error) from error
    except hub.EntryNotFoundError as error:
        raise FileNotInRepositoryError(f"{what}: the repository has no such file") from error
    except hub.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        if status in (401, 403):
            raise DownloadError(f"{what}: the Hub refuses access ({status}): log in, or pass token=...") from error
        if status in (408, 429) or status >= 500:
            raise _TryAgain(f"{what}: the Hub answered {status}; try again later") from error
        raise DownloadError(f"{what}: the Hub answered {status}") from error
    except hub.OfflineModeIsEnabled as error:
        raise DownloadError(f"{what}: not in the local cache, and HF_HUB_OFFLINE forbids to download it") from error
    except OSError as error:
        raise _of_disk_or_network(what, error) from error
    except ValueError as error:
        raise DownloadError(f"{what}: {error}") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore", "requests", "urllib3"):
            raise
        raise _TryAgain(f"{what}: the connection failed ({error or type(error).__name__})") from error


class FileNotInRepositoryError(DownloadError):
    """The repository exists and answers, but has no file of that name."""


def _absent(what: str, error: Exception) -> Exception:
    """The error for "not in the cache and not downloadable", by its cause."""
    cause = error.__cause__
    if cause is None:
        return DownloadError(f"{what}: not in the local cache, and downloading was switched off (local_files_only)")
    if type(cause).__name__ == "OfflineModeIsEnabled":
        return DownloadError(f"{what}: not in the local cache, and HF_HUB_OFFLINE forbids to download it")
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if status in (401, 403):
        return DownloadError(f"{what}: the Hub refuses access ({status}): log in (hf auth login), or pass token=...")
    if status is not None:
        message = f"{what}: not in the local cache, and the Hub answered {status}; try again later"
        passing = status in (408, 429) or status >= 500
        return _TryAgain(message) if passing and not _client_tries_again() else DownloadError(message)
    return DownloadError(
        f"{what}: not in the local cache, and the Hub cannot be reached ({cause}): check the connection, the proxy "
        "and HF_ENDPOINT"
    )


def _client_tries_again() -> bool:
    """Whether this huggingface_hub repeats the question for a file's metadata by itself, with growing pauses."""
    from huggingface_hub import get_hf_file_metadata

    return "retry_on_errors" in inspect.signature(get_hf_file_metadata).parameters


def _of_disk_or_network(what: str, error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DownloadError(f"{what}: the disk is full; free some space or pass cache_dir=... (nothing was kept)")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        return DownloadError(
            f"{what}: the cache folder cannot be written ({error}): pass cache_dir=... or set HF_HOME to another folder"
        )
    return _TryAgain(f"{what}: the transfer broke off ({error})")


def commit_of(path: Path) -> str | None:
    """The commit id of a cached file: the cache keeps it as snapshots/COMMIT/FILE."""
    return path.parent.name if path.parent.parent.name == "snapshots" and _COMMIT.fullmatch(path.parent.name) else None


def _inside_cache(path: Path, cache_dir: str | os.PathLike[str] | None) -> Path:
    """`path`, if it leads to a plain file inside the cache: a planted link to elsewhere is not followed."""
    from huggingface_hub import constants

    root = Path(cache_dir or constants.HF_HUB_CACHE).expanduser().resolve()
    real = path.resolve()
    if not real.is_relative_to(root):
        raise DownloadError(f"{path} leads out of the cache, to {real}; it is not read. Delete it and load again.")
    if not stat.S_ISREG(os.stat(real).st_mode):
        raise DownloadError(f"{path} is not a plain file; it is not read. Delete it and load again.")
    return path
