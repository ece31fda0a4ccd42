"""The actor that producers are, without Ray: cells that wait in `take`, in any order of events.

Its desk is the real one. The model is made up: a portion's rows are its number.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import pytest

from orchestrator.cells.portions import Portions
from orchestrator.exchange import producer
from orchestrator.exchange.desk import Desk
from orchestrator.exchange.stream import Forward
from orchestrator.ray_backend import producer_actor
from orchestrator.ray_backend.producer_actor import ActivationProducer
from tests.orchestrator.exchange.test_portions import portions


@dataclass
class Job:
    name: str = "producer-0"
    device: str = "cpu"


class MadeUp:
    """What `Producer` is to the actor."""

    def __init__(self, of: Portions) -> None:
        self.job, self._portions = Job(), of

    def begin(self, readers: list[str]) -> None:
        self.desk = Desk(self._portions, 0, 1, readers)
        self.ask, self.find, self.leave = self.desk.ask, self.desk.find, self.desk.leave

    def run(self) -> Iterator[bool]:
        while True:
            if (turn := self.desk.turn()) is None:
                yield False
            elif isinstance(turn.task, Forward):
                self.desk.begin(turn)
                yield True  # other things happen meanwhile
                turn.stream.forwarded(turn.task.lot)
                yield True
            else:
                turn.stream.published(turn.task.portion, f"rows of {turn.task.portion}")
                yield True

    def status(self) -> None:
        """Nobody looks."""


class Cell:
    """Takes one portion after the other, and has asked for `window` of them."""

    def __init__(self, name: str, cursor: int, window: int, of: Portions, actor) -> None:
        self.name, self.cursor, self._window, self._of, self._actor = (
            name,
            cursor,
            window,
            of,
            actor,
        )
        self._asked: dict[int, asyncio.Task] = {}

    @property
    def done(self) -> bool:
        return self.cursor >= self._of.end

    async def ask(self) -> None:
        for portion in islice(self._of.of_producer(0, 1, self.cursor), self._window):
            if portion not in self._asked:
                take = self._actor.take(self.name, portion, self.cursor)
                self._asked[portion] = asyncio.ensure_future(take)
                await settle()

    async def move(self) -> None:
        """Take what is next, if it is there, and ask for more."""
        await self.ask()
        if self._asked[self.cursor].done():
            start, rows = self._asked.pop(self.cursor).result()
            assert (start, rows) == (7, f"rows of {self.cursor}")
            self.cursor += 1
        if self.done:
            await self._actor.leave(self.name)
        else:
            await self.ask()


async def settle() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


@pytest.fixture
def start(monkeypatch):
    """A function that starts an actor for cells of these names."""

    async def start(of: Portions, names: list[str], made_up=MadeUp) -> ActivationProducer:
        monkeypatch.setattr(producer, "Producer", lambda job, transport: made_up(of))
        monkeypatch.setattr(producer_actor, "Gauges", lambda run, name, start: None)
        actor = ActivationProducer(Job(), "run", 7)
        await actor.begin(names)
        return actor

    return start


async def work(actor: ActivationProducer) -> bool:
    """What `advance` does in a moment."""
    did = next(actor._work)
    if did:
        actor._hand_out()
    await settle()
    return did


def test_one_that_catches_up_gets_what_it_had_asked_for_as_a_laggard(start):
    """By its next word it is where the other is: what it waits for was published long ago, and the
    producer has nothing more to do."""

    async def story():
        of = portions(40, 2)
        actor = await start(of, ["a~1", "b~1"])
        a, b = (Cell(name, 0, 2, of, actor) for name in ("a~1", "b~1"))
        while a.cursor < 12 or b.cursor < 12:
            for cell in (a, b):
                if cell.cursor < 12:
                    await cell.move()
            while await work(actor):
                pass
        await actor.leave("b~1")
        late = Cell("b~2", 10, 2, of, actor)
        await late.ask()
        while await work(actor):
            pass
        await late.move()  # two words without a turn of the producer in between
        await late.move()
        await late.move()
        await late.move()
        assert late.cursor == 14

    asyncio.run(story())


@pytest.mark.parametrize("seed", range(40))
def test_whoever_dies_and_moves_when_all_come_to_their_end(start, seed):
    async def story():
        rng = random.Random(seed)
        of = portions(rng.randint(10, 40), rng.randint(1, 4))
        window = rng.randint(1, 5)
        names = [f"cell-{index}~1" for index in range(rng.randint(1, 3))]
        actor = await start(of, names)
        cells, kills = [Cell(name, 0, window, of, actor) for name in names], rng.randint(0, 4)
        for _ in range(20_000):
            going = [cell for cell in cells if not cell.done]
            if not going:
                return
            mover = rng.choice([*going, None, None])
            if mover is None:
                await work(actor)
            elif kills and rng.random() < 0.02:
                kills -= 1
                await actor.leave(mover.name)
                name, _, number = mover.name.partition("~")
                at = rng.randint(0, mover.cursor)
                cells.remove(mover)
                cells.append(Cell(f"{name}~{int(number) + 1}", at, window, of, actor))
            else:
                await mover.move()
        raise AssertionError("nobody gets on any more")

    asyncio.run(story())


def test_a_producer_that_cannot_begin_says_so_to_whoever_began_it(start):
    class Blind(MadeUp):
        def begin(self, readers):
            raise FileNotFoundError("tokens")

    with pytest.raises(FileNotFoundError):
        asyncio.run(start(portions(40, 2), ["a~1"], Blind))
