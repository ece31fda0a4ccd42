"""Keeps transformers' progress bars and remarks off the terminal while we load a model."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr


@contextmanager
def quiet_transformers(*, hide_stderr: bool = False) -> Iterator[None]:
    """Silence transformers below errors. Bars of the Hub's downloads stay: those take minutes.

    hide_stderr is for code that draws bars without asking transformers' settings.
    """
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    enable_progress_bars()
    try:
        with (
            warnings.catch_warnings(),
            redirect_stderr(io.StringIO()) if hide_stderr else nullcontext(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
