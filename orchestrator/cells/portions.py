"""What transcoders take, numbered through: the rows of each step, then those of each forward pass
over the two halves of the holdout.

A *portion* is what a trainer takes at once; a *lot* is what the model is run over at once: a block
of several steps, or one pass over the holdout. Both numberings depend on the manifest alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mtc_core.config import TrainConfig
from mtc_core.tokens.token_store import TokenStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Portions:
    """batches: those of all steps, and at least those of the first block, which gives the
    statistics; batches of a block; passes over each half of the holdout, and the rows of one."""

    batches: int
    block_batches: int
    calibration_passes: int
    test_passes: int
    calibration_rows: int

    @classmethod
    def of(cls, store: TokenStore, train: TrainConfig, forward_contexts: int) -> Portions:
        calibration, test = store.holdout("calibration"), store.holdout("test")
        return cls(
            batches=max(train.steps, train.block_batches),
            block_batches=train.block_batches,
            calibration_passes=-(-len(calibration.ids_CT) // forward_contexts),
            test_passes=-(-len(test.ids_CT) // forward_contexts),
            calibration_rows=calibration.n_rows,
        )

    @property
    def blocks(self) -> int:
        return -(-self.batches // self.block_batches)

    @property
    def lots(self) -> int:
        return self.blocks + self.calibration_passes + self.test_passes

    @property
    def calibration(self) -> range:
        return range(self.batches, self.batches + self.calibration_passes)

    @property
    def test(self) -> range:
        return range(self.calibration.stop, self.calibration.stop + self.test_passes)

    @property
    def end(self) -> int:
        return self.test.stop

    def lot_of(self, portion: int) -> int:
        """The lot that a portion is of."""
        if portion < self.batches:
            return portion // self.block_batches
        return self.blocks + portion - self.batches

    def of_lot(self, lot: int) -> range:
        """The portions that a lot gives."""
        if lot < self.blocks:
            first = lot * self.block_batches
            return range(first, min(first + self.block_batches, self.batches))
        portion = self.batches + lot - self.blocks
        return range(portion, portion + 1)

    def of_producer(self, index: int, count: int, first: int) -> Iterator[int]:
        """Portions from `first` on whose lots the `index`th of `count` producers forwards."""
        for lot in range(self.lot_of(first), self.lots):
            if lot % count == index:
                yield from (portion for portion in self.of_lot(lot) if portion >= first)
