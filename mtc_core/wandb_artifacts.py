"""Transcoders as W&B artifacts: send a folder of them, fetch one or all.

    entity/project or project                  where to send to
    entity/project/artifact:version            what to fetch; version: v3, an alias, or latest

Needs wandb, imported on use. The key is WANDB_API_KEY or that of `wandb login`; without an entity
it is the account's default one. Nothing but the files and the metadata is sent: no code, no git, no
figures of the machine.
"""

from __future__ import annotations

import os
import re
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mtc_core.credentials import redacted, refuse_credentials
from mtc_core.errors import HubError
from mtc_core.model.gguf_package import cache_root
from mtc_core.suite_files import check_suite, check_whole, files_of, ids_in, one_of

TYPE = "transcoder-suite"
TARGET, FORM = "entity/project or project", "entity/project/artifact:version"
ANSWER_S, INIT_S = 10.0, 30.0  # how long the server may take: for any answer, to begin a run
NEW_KEY = "set WANDB_API_KEY to one of wandb.ai/authorize"
_PROJECT = re.compile(r"(?:([\w.-]+)/)?([\w.-]+)", re.ASCII)
_ARTIFACT = re.compile(r"(?:[\w.-]+/)?[\w.-]+/[\w.-]+(?::[\w.-]+)?", re.ASCII)
_NAME = re.compile(r"[\w.-]{1,128}", re.ASCII)


def parse_project(project: str) -> re.Match[str]:
    """Its entity, or None, and its name. Raises HubError."""
    refuse_credentials(project, TARGET)
    found = _PROJECT.fullmatch(project)
    if not found:
        raise HubError(f"{project!r} is no project on W&B; write {TARGET}")
    return found


def push_wandb(folder: Path, project: str, name: str, metadata: Mapping[str, Any]) -> str:
    """Send a suite as the next version of an artifact; its address, as `fetch_wandb` takes it.
    Raises HubError, and CheckpointError for a folder that is not whole."""
    found = parse_project(project)
    if not _NAME.fullmatch(name):
        raise HubError(f"{name!r} cannot name an artifact: use letters, digits, '.', '_' and '-'")
    check_suite(folder)
    with _explained(f"{project}/{name}"), tempfile.TemporaryDirectory() as scratch:
        _log_in()
        import wandb

        artifact = wandb.Artifact(name, type=TYPE, metadata=dict(metadata))
        for file in files_of(folder):
            # Not copied before it is sent, as W&B does with files that may change.
            artifact.add_file(str(folder / file), name=file, policy="immutable", skip_cache=True)
        with wandb.init(
            dir=scratch,
            entity=found[1],
            project=found[2],
            job_type="push",
            mode="online",
            settings=_settings(),
        ) as run:
            artifact = run.log_artifact(artifact).wait()
        return str(artifact.qualified_name)


def fetch_wandb(address: str, id: str | None = None) -> Path:
    """Folder of one transcoder of an artifact, fetched without the others and checked.

    id: its beginning will do if no other has it; None where the artifact holds one only.
    Raises HubError, and CheckpointError for a damaged one."""
    with _artifact(address) as artifact:
        found = one_of(ids_in(artifact.manifest.entries), id, address)
        return _fetched(address, artifact, [found], prefix=f"{found}/") / found


def fetch_wandb_suite(address: str) -> Path:
    """Folder of all files of a suite, fetched and checked. Raises as above."""
    with _artifact(address) as artifact:
        ids = ids_in(artifact.manifest.entries)
        if not ids:
            one_of(ids, None, address)
        return _fetched(address, artifact, ids, prefix=None)


@contextmanager
def _artifact(address: str) -> Iterator[Any]:
    refuse_credentials(address, FORM)
    if not _ARTIFACT.fullmatch(address):
        raise HubError(f"{address!r} is no artifact on W&B; write {FORM}")
    with _explained(address):
        _log_in()
        import wandb

        yield wandb.Api().artifact(address if ":" in address else f"{address}:latest")


def _fetched(address: str, artifact: Any, ids: list[str], *, prefix: str | None) -> Path:
    """The folder of this version in our cache; W&B keeps what is there and as it should be."""
    version = artifact.name.replace(":", "-")
    folder = cache_root() / "wandb" / artifact.entity / artifact.project / version
    artifact.download(root=str(folder), path_prefix=prefix, skip_cache=True)
    remedy = f"Delete {folder} and fetch again; if it stays, {address} itself should be sent again"
    check_whole(folder, ids, remedy)
    return folder


def _log_in() -> None:
    """Raises HubError for a server that does not answer, or without a key for it."""
    import wandb

    if (mode := os.environ.get("WANDB_MODE", "online")) not in ("online", "shared"):
        raise HubError(f"WANDB_MODE={mode} keeps everything here: set it to online, or unset it")
    server = wandb.setup().settings.base_url
    try:  # asked first, because W&B itself tries for 20 s, then names another reason
        urllib.request.urlopen(urllib.request.Request(server, method="HEAD"), timeout=ANSWER_S)
    except urllib.error.HTTPError as answer:
        answer.close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise HubError(
            redacted(
                f"W&B cannot be reached at {server} ({reason}). Check the network, its proxy and "
                "WANDB_BASE_URL"
            )
        ) from None
    if not wandb.login(prompt=False, verify=False):
        raise HubError(
            "W&B needs a key: set WANDB_API_KEY (wandb.ai/authorize), or log in with `wandb login`"
        )


def _settings() -> Any:
    import wandb

    wanted: dict[str, Any] = {
        "console": "off",
        "silent": True,
        "disable_code": True,
        "disable_git": True,
        "init_timeout": INIT_S,
        "x_disable_stats": True,
        "x_disable_meta": True,
    }
    known = wandb.Settings.model_fields  # the x_ ones come and go
    return wandb.Settings(**{name: wanted[name] for name in wanted.keys() & known.keys()})


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """What wandb raises, as HubError, without any key."""
    import wandb

    try:
        yield
    except (wandb.Error, OSError, ValueError, RuntimeError) as error:
        raise HubError(redacted(f"W&B, {where}: {_why(error)}")) from None


def _why(error: Exception) -> str:
    import wandb

    said = " ".join(str(error).split())
    status = re.search(r"\b(401|403|404|409|429|5\d\d)\b", said)
    code = status[1] if status else ""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename} cannot be read or written here ({error.strerror})"
    if code == "401" or isinstance(error, wandb.errors.AuthenticationError):
        return f"the key is not accepted ({said}); {NEW_KEY}"
    if code == "403" or "permission" in said.lower():
        return (
            f"the account may not do that ({said}); ask the entity's admin for access, or set "
            "WANDB_API_KEY to a key of an account that has it"
        )
    if code == "404" or "not found" in said.lower() or "Unable to fetch artifact" in said:
        return (
            f"there is no such artifact, or it is private ({said}): check entity, project, name "
            "and version, and whose key WANDB_API_KEY is"
        )
    return f"it did not work: {said or type(error).__name__}"
