"""What was measured of a finished suite, on disk.

    <run>/evaluations/<text>/quality.json            reconstruction, on a text of the user's
    <run>/evaluations/<text>/splice.json             the model's predictions, spliced
    <run>/evaluations/<text>/*.progress.safetensors  of a measurement that was interrupted

`<text>` is `test`, or `text-` and a hash of its tokens. Results belong to the weights whose sha256
they name: those of other weights are measured again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtc_core.atomic import write_bytes_atomic, write_json_atomic
from mtc_core.checkpoint import weights_digest
from mtc_core.errors import CheckpointError
from mtc_core.seeds import digest
from orchestrator.run_folder.disk_errors import disk_errors
from orchestrator.shapes import NUMBER, Each, Either, Maybe, fault

if TYPE_CHECKING:
    from torch import Tensor

EVALUATIONS, TEST = "evaluations", "test"
QUALITY, SPLICE = "quality.json", "splice.json"
VERSION = 1  # of what they hold: results of another are measured again
SAVE_S = 10.0
_SCORES = {
    **dict.fromkeys(("ce_increase", "ce_increase_se", "kl", "top1_agreement"), NUMBER),
    **dict.fromkeys(("ce_recovered_zero", "ce_recovered_mean"), Maybe(NUMBER)),
    "extreme_left": {"ce_increase": NUMBER},
    "by_prefix": Maybe([{"ce_increase": NUMBER, "kl": NUMBER}]),
    "source": str,
}
_ROWS = {"fvu": NUMBER, "fvu_ridge": NUMBER, "fvu_by_prefix": [NUMBER], "l0": NUMBER}
_QUALITY = {"ordinary": _ROWS, "all": _ROWS, "extreme_row_share": NUMBER,
            "extreme_variance_share": NUMBER}  # fmt: skip
_COMMON = {"weights": Each(str), "text": {"path": Maybe(str)}}
_SHAPES = {
    SPLICE: {**_COMMON, "tokens": int, "transcoders": Each(_SCORES), "joint": Maybe(_SCORES),
             "left_out": Each(str)},
    QUALITY: {**_COMMON, "text": {"path": str, "rows": int},
              "transcoders": Each(Either({"problem": str}, _QUALITY))},
}  # fmt: skip
_REQUEST = "request"


def finished(transcoders: Path) -> list[Path]:
    """The final/ of every transcoder that has one."""
    return sorted(transcoders.glob("*/final"))


def weights_of(finals: Sequence[Path]) -> dict[str, str]:
    """The sha256 of the weights of finished transcoders, by id: what results belong to.
    Raises CheckpointError where weights are missing."""
    try:
        return {final.parent.name: weights_digest(final) for final in finals}
    except OSError as error:
        raise CheckpointError(f"{error.filename} cannot be read ({error.strerror})") from None


class Results:
    """Of one text."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> dict[str, Any] | None:
        """A result, or None if there is none: what is damaged, or of another version of this code,
        is measured again."""
        return self._look(name)[0]

    def damage(self, name: str) -> str:
        """Why a result that is there is not read, for who only looks; nothing of one that is whole,
        or of another version."""
        return self._look(name)[1]

    def _look(self, name: str) -> tuple[dict[str, Any] | None, str]:
        path = self.folder / name
        try:
            with disk_errors(path, "read"):
                if not path.exists():
                    return None, ""
                found = json.loads(path.read_bytes())
        except ValueError as error:
            return None, f"{path} is damaged: {error}"
        if isinstance(found, dict) and found.get("version") != VERSION:
            return None, ""
        wrong = fault(found, _SHAPES[name])
        if not wrong and name == SPLICE and found["tokens"]:
            wrong = fault(found, {"ce_clean": NUMBER})  # of no tokens there is none
        return (None, f"{path} is damaged: {wrong}") if wrong else (found, "")

    def check_writable(self) -> None:
        """Before hours are spent on a result. Raises ConfigError."""
        probe = self.folder / ".probe"
        with disk_errors(self.folder, "written"):
            self.folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()

    def write(self, name: str, result: Mapping[str, Any]) -> None:
        with disk_errors(self.folder, "written"):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json_atomic(self.folder / name, {"version": VERSION, **result})


class Progress:
    """Totals of a measurement that is not done, for one who asks for the very same."""

    def __init__(self, results: Results, name: str, request: Mapping[str, Any]) -> None:
        self._path = results.folder / f"{Path(name).stem}.progress.safetensors"
        self._request = digest(dict(request))
        self._saved_at = time.monotonic()

    def read(self) -> dict[str, Tensor] | None:
        """What is there, unless it is damaged or of another request."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._path, "pt") as file:
                if (file.metadata() or {}).get(_REQUEST) != self._request:
                    return None
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return None

    def save(self, state: Mapping[str, Tensor]) -> None:
        from safetensors.torch import save

        tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
        with disk_errors(self._path, "written"):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomic(self._path, save(tensors, metadata={_REQUEST: self._request}))
        self._saved_at = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is long ago that something was saved."""
        return time.monotonic() - self._saved_at > SAVE_S

    def forget(self) -> None:
        with disk_errors(self._path, "written"):
            self._path.unlink(missing_ok=True)
