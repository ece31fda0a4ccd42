"""The small measurement at the end of `run`: what the suite does to the model's predictions. The
transcoders are done and saved; nothing that goes wrong here makes a run fail."""

from __future__ import annotations

import logging
from collections.abc import Callable

from rich.console import Console

from mtc_core.errors import MtcError
from orchestrator.evaluating.listener import listening
from orchestrator.interrupts import Interrupted
from orchestrator.manifest import Manifest
from orchestrator.manifest.scalars import AUTO
from orchestrator.run_folder.folder import RunFolder
from orchestrator.run_folder.lock import LockLost
from orchestrator.view import clock

log = logging.getLogger("mtc")
TOKENS, PATIENCE_S = 1024, 600.0  # of `auto`


def splice_at_the_end(
    run: RunFolder,
    manifest: Manifest,
    console: Console,
    say: Callable[[str], None],
    check: Callable[[], None],
    tell: Callable[[str], None] = lambda line: None,
) -> None:
    """Measure as many tokens as eval.spliced_tokens says, unless they are measured. tell: is told
    how far it is. Raises Interrupted and LockLost, of `check`, alone; the next invocation then goes
    on."""
    tokens, patience_s = manifest.eval.spliced_tokens, None
    if tokens == AUTO:
        tokens, patience_s = TOKENS, PATIENCE_S
    assert isinstance(tokens, int)
    if not tokens or not any(run.transcoders.glob("*/final")):
        return
    # Loads torch: nobody waits for that here, and at the start everybody would.
    from orchestrator.evaluating.evaluate import TooSlow, Wanted, evaluate

    wanted = Wanted(tokens=tokens, prefixes=False, patience_s=patience_s)
    try:
        with listening(console, check, say, tell) as listener:
            evaluate(run, wanted, listener)
    except TooSlow as error:
        say(
            f"not spliced: {tokens:,} tokens would take {clock(error.seconds)} here; "
            f"`mtc-orchestrate eval {run.path}` does it"
        )
    except MtcError as error:
        say(f"not spliced: {error}")
    except (Interrupted, LockLost):
        raise
    except Exception as error:
        log.exception("the suite was not spliced")
        say(f"not spliced: {type(error).__name__}: {error}; traceback in {run.log}")
