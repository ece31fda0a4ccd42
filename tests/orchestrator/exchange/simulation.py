"""Desks and readers without a model, a process or a clock: whoever moves next is drawn at random.

A handle is the portion's own number, so that a reader sees at once what it was given.
"""

from __future__ import annotations

import random
from itertools import islice

from orchestrator.cells.portions import Portions
from orchestrator.exchange.desk import Desk
from orchestrator.exchange.stream import Forward

ENOUGH = 30_000  # moves that bring any of these worlds to its end


class Reader:
    """Takes every portion in order, within a window at each desk."""

    def __init__(self, name: str, start: int, window: int, world: World) -> None:
        self.name, self.cursor, self.window, self.world = name, start, window, world
        self.asked: list[set[int]] = [set() for _ in world.desks]
        self.taken: list[int] = []

    @property
    def done(self) -> bool:
        return self.cursor == self.world.portions.end

    def move(self) -> None:
        """Ask for what there is room for, and take what is next, if it is there."""
        portions, desks = self.world.portions, self.world.desks
        for index, desk in enumerate(desks):
            theirs = portions.of_producer(index, len(desks), self.cursor)
            if not (window := list(islice(theirs, self.window))):
                desk.leave(self.name)
            for portion in window:
                if portion not in self.asked[index]:
                    self.asked[index].add(portion)
                    self.world.sent.append((desk, self.name, portion, self.cursor))
        owner = desks[portions.lot_of(self.cursor) % len(desks)]
        if (found := owner.find(self.name, self.cursor)) is not None:
            assert found == self.cursor
            self.taken.append(found)
            self.cursor += 1
        if self.done:
            for desk in desks:
                desk.leave(self.name)


class World:
    """So many producers and readers. `forwarded`: lots in the order in which they were run, and
    whether for readers that lagged; `most_stocked`: at any desk at once."""

    def __init__(
        self, portions: Portions, producers: int, starts: list[int], window: int, seed: int
    ) -> None:
        self.portions, self.window = portions, window
        self.random = random.Random(seed)
        names = [f"reader-{index}~1" for index in range(len(starts))]
        self.desks = [Desk(portions, index, producers, names) for index in range(producers)]
        self.readers = [
            Reader(name, start, window, self) for name, start in zip(names, starts, strict=True)
        ]
        self.sent: list[tuple[Desk, str, int, int]] = []  # asked, and not yet heard
        self.forwarded: list[tuple[int, bool]] = []
        self.most_stocked = 0

    def run(self, moves: int = ENOUGH) -> None:
        """Until all readers are done, or for so many moves."""
        for _ in range(moves):
            waiting = [reader for reader in self.readers if not reader.done]
            if not waiting:
                return
            mover = self.random.choice([*waiting, *self.desks, *self.sent[:1]])
            if isinstance(mover, tuple):
                self.deliver()
            elif isinstance(mover, Reader):
                mover.move()
            else:
                self._work(mover)
        assert moves < ENOUGH, "nobody gets on any more"

    def deliver(self) -> None:
        """Any of what was asked is heard: not what was asked first."""
        desk, *said = self.sent.pop(self.random.randrange(len(self.sent)))
        if any(reader.name == said[0] and not reader.done for reader in self.readers):
            desk.ask(*said)

    def restarted(self, old: Reader, portion: int) -> Reader:
        """It dies; the one that is to take its place, and begins there."""
        for desk in self.desks:
            desk.leave(old.name)
        name, _, number = old.name.rpartition("~")
        return Reader(f"{name}~{int(number) + 1}", portion, self.window, self)

    def restart_producer(self, index: int) -> None:
        """It dies, and a new one is told who reads."""
        names = [reader.name for reader in self.readers if not reader.done]
        self.desks[index] = Desk(self.portions, index, len(self.desks), names)
        for reader in self.readers:
            reader.asked[index] = set()

    def _work(self, desk: Desk) -> None:
        turn = desk.turn()
        if turn is None:
            return
        if isinstance(turn.task, Forward):
            desk.begin(turn)
            self.forwarded.append((turn.task.lot, turn.late))
            turn.stream.forwarded(turn.task.lot)
        else:
            turn.stream.published(turn.task.portion, turn.task.portion)
            self.most_stocked = max(self.most_stocked, desk.stocked)
