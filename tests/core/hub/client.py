"""What tests of the Hub do with its client."""

import json

from mtc_core.hub import push_folder
from tests.stand_ins.hub_state import WRITER

SUITE = "hf://org/suite"


def point_at(url, cache, monkeypatch):
    from huggingface_hub import constants

    values = {
        "ENDPOINT": url,
        "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(cache),
        "HF_TOKEN_PATH": str(cache.parent / "token"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
    }
    for name, value in values.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", WRITER)


def ids_of(suite):
    return json.loads((suite / "suite.json").read_text())["ids"]


def push(suite, address=SUITE, **options):
    return push_folder(suite, address, message="A suite", **options)
