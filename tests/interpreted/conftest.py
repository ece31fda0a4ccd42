"""Triton kernels on CPUs, by Triton's interpreter, which must be chosen before they are loaded:
tests/core/test_triton.py runs what is here in a process of its own."""

import os

if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["test_*.py"]
