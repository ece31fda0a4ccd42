"""Transcoders on the Hugging Face Hub: send a folder of them, fetch one or all.

    hf://org/name             the repository as it is now
    hf://org/name@revision    a branch, a tag or a commit of it

Needs huggingface_hub, imported on use. The token is HF_TOKEN or that of `hf auth login`. What was
fetched before is found in the Hub's cache without a network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtc_core.credentials import ODD_TOKEN, TOKENS, redacted, refuse_credentials
from mtc_core.errors import HubError
from mtc_core.suite_files import (
    check_suite,
    check_whole,
    damaged_files,
    files_of,
    ids_in,
    one_of,
)

FORM = "hf://org/name or hf://org/name@revision"
EXPORT = "export.json"  # of mtc_core.export
MAIN = "main"  # the branch that an address without a revision means
ANSWER_S = 10.0  # how long the Hub may take for its first answer
_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w.-]+(?:/[\w.-]+)*))?", re.ASCII)
_CACHED = "what was fetched once is there without a network"
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class HubAddress:
    """A repository on the Hub, and which state of it."""

    repo: str  # org/name
    revision: str | None = None  # None: its main branch

    @classmethod
    def parse(cls, address: str) -> HubAddress:
        """Raises HubError."""
        from huggingface_hub.utils import HFValidationError, validate_repo_id

        refuse_credentials(address, FORM)
        found = _ADDRESS.fullmatch(address)
        if not found:
            raise HubError(f"{address!r} is no address on the Hub; write {FORM}")
        try:
            validate_repo_id(found[1])
        except HFValidationError as error:
            raise HubError(f"{address!r} is no address on the Hub: {error}") from None
        return cls(found[1], found[2])

    def __str__(self) -> str:
        return f"hf://{self.repo}" + (f"@{self.revision}" if self.revision else "")


def push_folder(folder: Path, repo: str, *, private: bool = False, message: str) -> str:
    """Send a suite as one commit, so that it is there whole or not at all; the URL of its files at
    that commit. Raises HubError, and CheckpointError for a folder that is not whole.

    The repository is made if need be, and a branch that the address names; other files of it stay.
    private: make it private, and never send to a public one."""
    place = HubAddress.parse(repo)
    if not (folder / EXPORT).exists():  # other tools' files vouch for nothing
        check_suite(folder)
    if _COMMIT.fullmatch(place.revision or ""):
        raise HubError(f"{place} is a commit, which nothing can change; name a branch, or none")
    with _explained(place):
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi()
        _make_room(api, place, private)
        # Not upload_folder: it makes several commits of a large folder.
        files = [CommitOperationAdd(file, folder / file) for file in files_of(folder)]
        commit = api.create_commit(
            place.repo, files, commit_message=message, revision=place.revision
        )
        return f"{api.endpoint}/{place.repo}/tree/{commit.oid}"


def fetch_transcoder(address: str, id: str | None = None) -> Path:
    """Folder of one transcoder in the Hub's cache, fetched without the others and checked.

    id: its beginning will do if no other has it; None where the repository holds one only.
    Raises HubError, and CheckpointError for a damaged one."""
    place = HubAddress.parse(address)
    with _explained(place):
        files, cached = _files_at(place)
        found = one_of(ids_in(files), id, str(place))
        return _fetched(place, [found], cached, patterns=[f"{found}/*"]) / found


def fetch_suite(address: str) -> Path:
    """Folder of all files of a suite in the Hub's cache, fetched and checked. Raises as above."""
    place = HubAddress.parse(address)
    with _explained(place):
        files, cached = _files_at(place)
        ids = ids_in(files)
        if not ids:
            one_of(ids, None, str(place))
        return _fetched(place, ids, cached, patterns=None)


def _make_room(api: Any, place: HubAddress, private: bool) -> None:
    """The repository and the branch to send to."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import RepositoryNotFoundError

    if not get_token():
        raise HubError(
            f"sending to {place} needs a token that may write: set HF_TOKEN ({TOKENS}), "
            "or log in with `hf auth login`"
        )
    try:
        # Asked first, because it alone has a time limit.
        found = api.model_info(place.repo, timeout=ANSWER_S)
    except RepositoryNotFoundError:
        # Not False: an organization may make its repositories private.
        api.create_repo(place.repo, private=private or None, exist_ok=True)
        found = None
    if private and found and not found.private:
        raise HubError(
            f"{place} is public, and should be private: everyone could read what you send. "
            "Change that in its settings on the Hub, or name another repository"
        )
    if place.revision:
        api.create_branch(place.repo, branch=place.revision, exist_ok=True)


def _files_at(place: HubAddress) -> tuple[list[str], bool]:
    """All files of a repository, and whether the local cache says so: the Hub cannot be reached."""
    from huggingface_hub import HfApi, get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, HfHubHTTPError, HTTPError

    try:
        # Asked first, because downloads have no time limit.
        info = HfApi().model_info(place.repo, revision=place.revision, timeout=ANSWER_S)
        return [file.rfilename for file in info.siblings or ()], False
    except (HTTPError, OSError) as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
            raise
        try:
            tree = get_cached_repo_tree(place.repo, revision=place.revision)
        except CachedRepoTreeNotFoundError:
            raise error from None
        return [file.path for file in tree], True


def _fetched(
    place: HubAddress, ids: list[str], cached: bool, *, patterns: list[str] | None
) -> Path:
    """The snapshot with these transcoders, each of them whole."""
    from huggingface_hub import hf_hub_download, snapshot_download

    folder = Path(
        snapshot_download(
            place.repo,
            # By name, so that the cache knows what the name means without a network.
            revision=place.revision or MAIN,
            allow_patterns=patterns,
            local_files_only=cached,
        )
    )
    if cached:
        check_whole(folder, ids, f"Fetch {place} again while the Hub can be reached")
    for id in ids:
        for name in damaged_files(folder / id):
            file = folder / id / name
            if file.is_file():  # the cache may be at fault: once more, from the Hub
                file.unlink()
                hf_hub_download(
                    place.repo, f"{id}/{name}", revision=folder.name, force_download=True
                )
    check_whole(folder, ids, f"It is so in {place}: whoever sent it should send it again")
    return folder


@contextmanager
def _explained(place: HubAddress) -> Iterator[None]:
    """What huggingface_hub raises, as HubError, without what a token could be read from."""
    from huggingface_hub.errors import HTTPError, XetDownloadError

    try:
        yield
    except (HTTPError, OSError, ValueError, RuntimeError, XetDownloadError) as error:
        reason: BaseException = error
        while isinstance(reason, RuntimeError) and reason.__cause__:  # of a thread that sends
            reason = reason.__cause__
        raise HubError(redacted(f"{place}: {_why(reason, place)}")) from None


def _why(error: BaseException, place: HubAddress) -> str:
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        IncompleteSnapshotError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    match error:
        case GatedRepoError():
            return (
                f"it is gated. Accept its terms at https://huggingface.co/{place.repo}, then set "
                f"HF_TOKEN to a token of that account ({TOKENS})"
            )
        case RepositoryNotFoundError():
            return (
                "the Hub has no such repository, or it is private: check the spelling, "
                f"or set HF_TOKEN to a token that may read it ({TOKENS})"
            )
        case RevisionNotFoundError():
            return f"it has no revision {place.revision or MAIN!r}; a branch, a tag or a commit?"
        case HfHubHTTPError():
            return _refusal(error.response.status_code, error)
        case OfflineModeIsEnabled():
            return f"HF_HUB_OFFLINE forbids to ask the Hub: unset it ({_CACHED})"
        case IncompleteSnapshotError():
            return f"the Hub cannot be reached, and its cache here lacks some of it ({_CACHED})"
        case OSError(errno=int(), filename=str(file)):
            return f"{file} cannot be read or written here ({error.strerror})"
    if "Illegal header value" in str(error) or isinstance(error, UnicodeError):
        return ODD_TOKEN
    if isinstance(error, ValueError | RuntimeError):
        return f"the Hub's client gave up: {error}"
    return (
        f"the Hub cannot be reached ({error or type(error).__name__}). Check the network, its "
        f"proxy and HF_ENDPOINT ({_CACHED})"
    )


def _refusal(status: int, error: BaseException) -> str:
    """Of a Hub that was reached."""
    match status:
        case 401:
            return f"the Hub does not accept the token (401): set HF_TOKEN to a new one ({TOKENS})"
        case 403:
            return (
                "the token may not do that (403): to send, it needs write permission for this "
                f"repository or organization ({TOKENS}); set HF_TOKEN to such a one"
            )
        case 429:
            return "the Hub has had too many requests from here (429); try again in five minutes"
        case _ if status >= 500:
            return f"the Hub is out of order ({status}); try again later"
    return f"the Hub refused ({status}): {str(error).strip().splitlines()[-1]}"
