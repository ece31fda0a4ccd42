"""The same arithmetic in every test run: one thread, no network."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")

import pytest


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Threads decide the order of sums, and more than the free cores make tests crawl."""
    import torch

    torch.set_num_threads(1)
