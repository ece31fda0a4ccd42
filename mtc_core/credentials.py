"""Tokens and passwords stay out of addresses, messages and logs.

They come from HF_TOKEN, WANDB_API_KEY and what these tools' own logins keep, and go out in headers
that the tools write; nothing here passes one on.
"""

from __future__ import annotations

import os
import re

from mtc_core.errors import HubError

VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY")
HIDDEN = "***"
TOKENS = "huggingface.co/settings/tokens"
ODD_TOKEN = f"HF_TOKEN holds characters that no token has; copy it again from {TOKENS}"
SHORTEST = 8  # characters of a token; what is shorter is a mistake, and a part of ordinary words
_TOKEN = re.compile(r"hf_(?:oauth_|jwt_)?[A-Za-z0-9]{20,}[\w.-]*|wandb_v1_\w+")
_BEARER = re.compile(r"(?i)\b(Bearer|Basic)\s+[^\s'\"]+")
_USER = re.compile(r"(?<=://)[^/\s]+@")


def refuse_credentials(address: str, form: str) -> None:
    """Raise HubError for an address that holds a token or a password. form: a good address."""
    if redacted(address) != address:
        raise HubError(
            "the address holds what looks like a token or a password, and an address ends up in "
            f"shell histories and logs. Write {form}, give the token in HF_TOKEN or "
            "WANDB_API_KEY, and revoke this one if others can see it"
        )


def redacted(text: str) -> str:
    """The text without any token or password, whoever wrote it."""
    for name in VARIABLES:
        if len(value := os.environ.get(name, "").strip()) >= SHORTEST:
            text = text.replace(value, HIDDEN)
    text = _TOKEN.sub(HIDDEN, text)
    return _USER.sub(f"{HIDDEN}@", _BEARER.sub(rf"\1 {HIDDEN}", text))
