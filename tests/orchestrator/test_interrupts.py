"""The first signal asks for the end and says so; the second is not waited for."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence

import pytest

from orchestrator.interrupts import Interrupted, interrupts


@pytest.fixture(autouse=True)
def no_nohup() -> Iterator[None]:
    """Tests may run under it, and would then pass the ignored signal on."""
    earlier = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, earlier)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_noted_and_answered(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    with interrupts() as interrupt:
        interrupt.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted):
            interrupt.check()
    assert interrupt.exit_code == 128 + number
    assert capfd.readouterr().err == "saving; press Ctrl-C again to end at once\n"


def test_a_run_under_nohup_outlives_its_terminal() -> None:
    earlier = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts() as interrupt:
            os.kill(os.getpid(), signal.SIGHUP)
            interrupt.check()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, earlier)


def test_an_end_says_whose_last_steps_are_lost() -> None:
    assert str(Interrupted()) == "everything is saved"
    assert str(Interrupted(["trainer-1"])).startswith("trainer-1 had died, and goes on from")


def _signals(numbers: Sequence[int]) -> None:
    with interrupts() as interrupt:
        for number in numbers:
            os.kill(os.getpid(), number)
        os._exit(0 if interrupt else 1)


def _signals_at_once(numbers: Sequence[int]) -> None:
    """While the main thread hears nothing."""
    with interrupts() as interrupt:
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        for number in numbers:
            os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        os._exit(0 if interrupt else 1)


@pytest.mark.parametrize(
    ("sent", "numbers", "code"),
    [
        (_signals, (signal.SIGINT, signal.SIGINT), 130),
        (_signals, (signal.SIGTERM, signal.SIGINT), 143),
        (_signals, (signal.SIGHUP, signal.SIGTERM, signal.SIGINT), 129),
        (_signals, (signal.SIGTERM, signal.SIGHUP), 0),
        (_signals_at_once, (signal.SIGTERM, signal.SIGHUP), 0),  # a machine that goes down
        (_signals, (signal.SIGHUP, signal.SIGHUP), 0),  # a shell, and then its terminal
    ],
)
def test_the_second_signal_ends_at_once_unless_it_is_one_that_comes_by_itself(
    sent: Callable[[Sequence[int]], None], numbers: Sequence[int], code: int
) -> None:
    child = multiprocessing.get_context("spawn").Process(target=sent, args=(numbers,))
    child.start()
    child.join(60)
    assert child.exitcode == code


def test_an_alarm_that_would_abort_what_a_signal_ends_is_forgotten():
    """Ray's own handler sets one, where a SIGTERM comes while Ray starts."""
    signal.alarm(60)
    with interrupts() as interrupt:
        signal.raise_signal(signal.SIGTERM)
        assert interrupt
    assert signal.alarm(0) == 0
