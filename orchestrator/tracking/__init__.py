"""Weights & Biases, at arm's length: a process of its own reads what a run writes.

    tracker.py         the driver's side: start, poll, close
    follow.py          the process: metrics.jsonl of every transcoder -> one W&B run
    wandb_run.py       the only file that imports wandb
    names.py           what a figure of ours is called there
    tail.py            whole lines of a file that grows
    tracking_file.py   tracking.json: which W&B run, and what it has been given
    processes.py       ending a process with everything it started

Training writes its files whether anyone reads them or not, so nothing that W&B does (hang, crash,
no network, a wrong key, a full disk) can touch its speed, its bits or its exit code.

What decides: `tracking.wandb` of the manifest alone says off, offline or online; `WANDB_MODE`
neither switches tracking on nor changes it. `tracking.project` and `tracking.entity`, where they
are given, go before WANDB_PROJECT and WANDB_ENTITY, and those before our default project and the
account's default entity. WANDB_API_KEY (or `wandb login`) and WANDB_BASE_URL mean what they always
mean; the key stays in the environment, and no file of the run folder ever holds it.
"""

from orchestrator.tracking.tracker import Tracker, make_tracker

__all__ = ["Tracker", "make_tracker"]
