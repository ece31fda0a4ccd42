"""A folder of transcoders on its way to a hub or back: whose files it holds, and are they whole.

    README.md, suite.json, …   about the suite
    <id>/config.json           one transcoder of it (mtc_core/FORMAT.md)
    <id>/weights.safetensors
    <id>/sha256.json

Other files go along, and only hidden ones stay.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from mtc_core.checkpoint import CONFIG, DIGESTS, WEIGHTS, file_digest
from mtc_core.errors import CheckpointError, HubError

LISTED = 20  # ids that a message names


def files_of(folder: Path) -> list[str]:
    """Paths of its files relative to the folder, sorted, without hidden ones."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(
        path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts)
    )


def ids_in(files: Iterable[str]) -> list[str]:
    """Transcoders among the files of a suite, sorted: folders at its top with a config.json."""
    paths = (PurePosixPath(file) for file in files)
    return sorted(path.parts[0] for path in paths if path.parts[1:] == (CONFIG,))


def one_of(ids: list[str], wanted: str | None, where: str) -> str:
    """The id that `wanted` is, or begins; None: the only one. Raises HubError, which lists ids."""
    if not ids:
        raise HubError(f"{where} holds no transcoder: none of its folders has a {CONFIG}")
    if wanted in ids:
        return str(wanted)
    found = [id for id in ids if id.startswith(wanted or "")]
    match found:
        case [only]:
            return only
        case []:
            raise HubError(f"{where} has no transcoder {wanted!r}; it holds {_listed(ids)}")
    if not wanted:
        raise HubError(f"{where} holds {len(ids)} transcoders; name one of {_listed(found)}")
    raise HubError(f"{len(found)} transcoders of {where} begin with {wanted!r}: {_listed(found)}")


def _listed(ids: list[str]) -> str:
    more = f" and {len(ids) - LISTED} more" if len(ids) > LISTED else ""
    return ", ".join(ids[:LISTED]) + more


def damaged_files(folder: Path) -> list[str]:
    """Names of the files of a transcoder that its sha256.json does not vouch for."""
    try:
        digests = json.loads((folder / DIGESTS).read_bytes())
    except (OSError, ValueError):
        return [DIGESTS]
    if not isinstance(digests, dict) or any("/" in name for name in digests):
        return [DIGESTS]
    names = sorted({CONFIG, WEIGHTS, *digests})
    return [name for name in names if _digest(folder / name) != digests.get(name)]


def _digest(file: Path) -> str:
    return file_digest(file) if file.is_file() else "missing"


def check_whole(folder: Path, ids: Iterable[str], remedy: str) -> None:
    """Raises CheckpointError for the first transcoder with a damaged or missing file."""
    for id in ids:
        check_one(folder / id, remedy)


def check_one(transcoder: Path, remedy: str) -> None:
    """The same of the folder of one."""
    for name in damaged_files(transcoder):
        state = "is not what its sha256.json says" if name != DIGESTS else "cannot be read"
        state = state if (transcoder / name).is_file() else "is missing"
        raise CheckpointError(f"{transcoder / name} {state}: it cannot be used. {remedy}")


def check_suite(folder: Path) -> list[str]:
    """Ids of a local suite, each of them whole. Raises CheckpointError."""
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder} to send")
    ids = ids_in(files_of(folder))
    if not ids:
        raise CheckpointError(
            f"{folder} holds no transcoder to send: none of its folders has a {CONFIG}"
        )
    check_whole(folder, ids, "Export it again before you send it")
    return ids
