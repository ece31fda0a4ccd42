"""One transcoder of a run: its trainer, and the files that it leaves on disk."""

from __future__ import annotations

import json
import os
from typing import Any, BinaryIO

from torch import Tensor

from mtc_core.atomic import write_json_atomic
from mtc_core.checkpoint import read_latest, write_checkpoint
from mtc_core.config import TrainConfig, TranscoderSpec
from mtc_core.errors import TrainingStopped
from mtc_core.held_out import HeldOut
from mtc_core.producer import Activations
from mtc_core.statistics import measure_pair
from mtc_core.trainer import StepReport, TranscoderTrainer
from mtc_core.workspace import Workspace
from orchestrator.cells.status import TranscoderStatus
from orchestrator.run_folder.init_from import Start
from orchestrator.run_folder.transcoder_folder import TranscoderFolder


class TranscoderRun:
    """Trains one transcoder inside a cell, and keeps its folder."""

    def __init__(
        self,
        spec: TranscoderSpec,
        train: TrainConfig,
        folder: TranscoderFolder,
        device: str,
        keep: int,
        workspace: Workspace,
        start: Start | None = None,
    ) -> None:
        """`start`: a saved transcoder whose weights this one starts from."""
        self.spec, self.train, self.folder, self.device = spec, train, folder, device
        self.keep, self.workspace, self.start = keep, workspace, start
        self.trainer: TranscoderTrainer | None = None
        self.held_out: HeldOut | None = None
        self.reason = ""
        self.messages: list[str] = []  # for the log
        self._last: dict[str, Any] = {}
        self._saved_step = -1
        self._midway = False  # what a step that broke off has left is no state of any step
        self._claim: BinaryIO | None = None

    @property
    def step_index(self) -> int:
        if self.finished or self.held_out:
            return self.train.steps
        return self.trainer.step_index if self.trainer else 0

    @property
    def live(self) -> bool:
        return not self.reason

    @property
    def finished(self) -> bool:
        return self.folder.final.exists()

    @property
    def ended(self) -> bool:
        """Done, or stopped for good by an earlier process or this one."""
        return self.finished or bool(self.reason) or self.folder.failed.exists()

    def claim(self) -> None:
        """Be the one process that trains this transcoder, until `release` or the process's end.

        Raises ConfigError if another does not let go of it."""
        if self._claim is None and not self.ended:
            self._claim = self.folder.claim()

    def release(self) -> None:
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def resume(self) -> None:
        """Go on from the newest good checkpoint, if there is one and this is not done yet."""
        if self.finished:
            return
        self.folder.path.mkdir(parents=True, exist_ok=True)
        if not self.folder.config.exists():
            write_json_atomic(self.folder.config, {"id": self.spec.id, **self.spec.to_dict()})
        if self.folder.failed.exists():
            self.reason = json.loads(self.folder.failed.read_bytes())["reason"]
            self.messages.append(
                f"{self.spec.id} stays stopped: {self.reason} (in a run of another name, for the "
                "same manifest would stop again)"
            )
            return
        checkpoint, complaints = read_latest(self.folder.checkpoints)
        self.messages += [f"{complaint}; using the one before" for complaint in complaints]
        metrics_bytes = 0
        if checkpoint:
            self.trainer = TranscoderTrainer.from_state(
                self.spec,
                self.train,
                checkpoint.state,
                device=self.device,
                workspace=self.workspace,
            )
            metrics_bytes = checkpoint.facts["metrics_bytes"]
            self._last = checkpoint.facts["last"]
            self._saved_step = self.step_index
        elif self.start:
            self.start.check()
            self.messages.append(f"{self.spec.id} starts from {self.start.folder}")
        with open(self.folder.metrics, "ab") as file:  # lines of steps that will be run again
            file.truncate(min(metrics_bytes, file.tell()))

    def begin(self, block: Activations) -> None:
        """Measure block 0 and start from random or given weights, unless resumed."""
        if self.trainer is not None or not self.live or self.finished:
            return
        try:
            statistics = measure_pair(*self._pair(block))
        except TrainingStopped as error:
            self.fail(str(error))
            return
        self.trainer = TranscoderTrainer(
            self.spec,
            self.train,
            statistics,
            device=self.device,
            workspace=self.workspace,
            start=self.start.read().state_dict() if self.start else None,
        )

    def step(self, step: int, rows: Activations) -> None:
        """Train on one step's rows, unless stopped or already past this step."""
        if not self.live or self.step_index != step:
            return
        assert self.trainer is not None, "begin() comes first"
        self._midway = True
        try:
            report = self.trainer.step(*self._pair(rows))
        except TrainingStopped as error:
            self.fail(str(error))
            return
        self._midway = False
        if step % self.train.log_every_steps == 0 or step == self.train.steps - 1:
            self._log(step, report)

    def checkpoint(self) -> None:
        """Save the state, unless it is on disk already, or is of no step."""
        if self.trainer is None or not self.live or self._midway:
            return
        if self._saved_step == self.step_index:
            return
        with open(self.folder.metrics, "ab") as file:
            os.fsync(file.fileno())
            facts = {"metrics_bytes": file.tell(), "last": self._last}
        try:
            write_checkpoint(
                self.folder.checkpoints, self.step_index, self.trainer.state(), facts, self.keep
            )
        except TrainingStopped as error:
            self.fail(str(error))
        self._saved_step = self.step_index

    def fail(self, reason: str) -> None:
        """Stop this transcoder for good; the others go on."""
        self.reason = reason
        self.messages.append(f"{self.spec.id} stopped at step {self.step_index}: {reason}")
        write_json_atomic(self.folder.failed, {"reason": reason, "step": self.step_index})

    def prepare_held_out(self, calibration_rows: int) -> None:
        """Of what was trained, whose state is on disk and is let go: it is three times as large."""
        assert self.trainer is not None and self._saved_step == self.step_index
        self.held_out = HeldOut(self.trainer, calibration_rows)
        self.trainer = None

    def calibrate(self, rows: Activations) -> None:
        assert self.held_out is not None
        self.held_out.calibrate(*self._pair(rows))

    def settle(self) -> None:
        """Between the two halves: fix the threshold."""
        assert self.held_out is not None
        self.held_out.settle()

    def test(self, rows: Activations) -> None:
        assert self.held_out is not None
        self.held_out.test(*self._pair(rows))

    def save_final(self, provenance: dict[str, Any]) -> None:
        """Write evaluation.json, then final/: its presence says that this transcoder is done."""
        assert self.held_out is not None
        try:
            summary = self.held_out.summary()
        except TrainingStopped as error:
            self.fail(str(error))
            return
        write_json_atomic(self.folder.evaluation, {"id": self.spec.id, **summary})
        transcoder = self.held_out.transcoder
        measured = {"l0_test": summary["ordinary"]["l0"], "fvu_test": summary["ordinary"]["fvu"]}
        start = self.start.to_dict() if self.start else None
        transcoder.provenance = {**provenance, "init_from": start, **measured}
        transcoder.save(self.folder.final)

    def status(self) -> TranscoderStatus:
        state = "failed" if self.reason else "done" if self.finished else "training"
        return TranscoderStatus(
            id=self.spec.id,
            state=state,
            step=self.step_index,
            saved_step=self.train.steps if self.finished else max(0, self._saved_step),
            fvu=self._last.get("fvu"),
            fvu_by_prefix=tuple(self._last.get("fvu_by_prefix", ())),
            l0=self._last.get("l0"),
            dead_share=self._last.get("dead_share"),
            reason=self.reason,
        )

    def _pair(self, activations: Activations) -> tuple[Tensor, Tensor]:
        return activations[self.spec.source.tensor], activations[self.spec.target.tensor]

    def _log(self, step: int, report: StepReport) -> None:
        assert self.trainer is not None
        fvu, dead = report.fvu_P.tolist(), self.trainer.dead
        self._last = {
            "step": step,
            "tokens": (step + 1) * self.train.batch_tokens,
            "loss": float(report.loss),
            "fvu": fvu[-1],
            "fvu_by_prefix": fvu,
            "l2_by_prefix": report.l2_P.tolist(),
            "l0": float(report.l0),
            "dead": dead,
            "dead_share": dead / self.spec.d_sae,
            "aux": float(report.aux),
            "extreme_row_share": float(report.extreme),
            "threshold": max(0.0, float(self.trainer.threshold)),  # of scaled units; 0: none yet
            "lr": self.spec.learning_rate(self.train.lr_steps) * self.train.lr_factor(step),
        }
        with open(self.folder.metrics, "a") as file:
            file.write(json.dumps(self._last) + "\n")
