"""The same arithmetic in every test run: one thread, no network. A tiny model, and a run of it that
nothing interrupted, to compare with."""

import os
import secrets
import signal

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
# Ray reads them when it is imported; without a token it would write one to the home folder.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)

# Set in many containers; every command of a test would compile all it imports anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Shells have what they start in the background ignore Ctrl-C, and children would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Threads decide the order of sums, and more than the free cores make tests crawl."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A random-weights Llama of three blocks, in a local folder."""
    from tests.core.tiny_models import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("model"), family="llama", n_layers=3)


@pytest.fixture(scope="session")
def reference(model, tmp_path_factory):
    """Of four transcoders."""
    from tests.e2e.runs import uninterrupted

    return uninterrupted(tmp_path_factory.mktemp("reference"), model)
