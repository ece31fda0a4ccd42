"""What the fork server imports once for all children of tests/e2e/runs.py."""

import transformers.models.llama.modeling_llama

import mtc_core.capture.hf
import orchestrator.driver

__all__ = ["mtc_core", "orchestrator", "transformers"]
