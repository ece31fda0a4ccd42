"""Portions and lots: two numberings of the same rows."""

from __future__ import annotations

from orchestrator.cells.portions import Portions


def portions(batches: int, block_batches: int, calibration: int = 2, test: int = 3) -> Portions:
    return Portions(
        batches=batches,
        block_batches=block_batches,
        calibration_passes=calibration,
        test_passes=test,
        calibration_rows=0,
    )


def test_every_portion_is_of_one_lot_and_every_lot_gives_its_portions_in_order() -> None:
    for batches in range(1, 12):
        for block_batches in range(1, 5):
            p = portions(batches, block_batches)
            listed = [portion for lot in range(p.lots) for portion in p.of_lot(lot)]
            assert listed == list(range(p.end))
            assert all(portion in p.of_lot(p.lot_of(portion)) for portion in listed)
            assert p.blocks == -(-batches // block_batches)


def test_the_holdout_comes_after_the_steps_one_pass_a_portion() -> None:
    p = portions(6, 4)
    assert (p.calibration, p.test, p.end) == (range(6, 8), range(8, 11), 11)
    assert [p.lot_of(portion) for portion in range(p.end)] == [0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6]


def test_producers_take_lots_in_turn() -> None:
    p = portions(10, 2)
    first, second = (list(p.of_producer(index, 2, 0)) for index in range(2))
    assert sorted(first + second) == list(range(p.end))
    assert first[:4] == [0, 1, 4, 5] and second[:4] == [2, 3, 6, 7]
    assert list(p.of_producer(0, 2, 5))[:2] == [5, 8]
    assert list(p.of_producer(0, 2, p.end - 1)) == []
