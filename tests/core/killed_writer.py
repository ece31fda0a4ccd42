"""Writes a checkpoint once for every system call in it, and dies just before that call.

    python -m tests.core.killed_writer FOLDER STEP

FOLDER/n holds what is left when the n-th call never happened; the last one was written to the end.
"""

import os
import sys
from itertools import count
from pathlib import Path

import torch

from mtc_core.checkpoint import write_checkpoint
from tests.dying import die_before

CALLS = ("mkdir", "fsync", "replace", "rename", "unlink", "rmdir")


def state(step):
    return {"W": torch.full((7, 5), float(step)), "step": torch.tensor(step)}


def main(root, step):
    for n in count():
        folder = root / str(n)
        for earlier in (100, 200):
            write_checkpoint(folder, earlier, state(earlier), {}, keep=2)
        if child := os.fork():
            if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
                return
        else:
            die_before(n, CALLS)
            write_checkpoint(folder, step, state(step), {}, keep=2)
            os._exit(0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]))
