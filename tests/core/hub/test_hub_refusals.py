"""Everything that can be wrong with the Hugging Face Hub, and what is said then.

The Hub is a local stand-in (tests/stand_ins/hub.py), which refuses as the real one is known to.
"""

import json
import socket
import time
from pathlib import Path

import pytest

from mtc_core.errors import CheckpointError, HubError, MtcError
from mtc_core.hub import fetch_suite, fetch_transcoder
from mtc_core.model.model_source import read_config
from mtc_core.tokens.data_config import DataConfig
from mtc_core.tokens.text_hub import hub_commit
from tests.core.hub.client import SUITE, ids_of, point_at, push
from tests.core.hub.suites import contents
from tests.stand_ins.hub_state import READER

# Of huggingface_hub's own LFS uploads.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


# Rights


def test_a_private_repository_needs_a_token_to_read(hub, suite, monkeypatch):
    push(suite, private=True)
    assert hub.repos["org/suite"].private
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match=r"no such repository, or it is private.*HF_TOKEN"):
        fetch_suite(SUITE)
    monkeypatch.setenv("HF_TOKEN", READER)
    assert contents(fetch_suite(SUITE)) == contents(suite)


def test_what_should_be_private_is_not_sent_to_a_public_repository(hub, suite):
    push(suite)
    with pytest.raises(HubError, match="is public, and should be private"):
        push(suite, private=True)
    assert len(hub.asked("/commit/")) == 1


def test_without_a_name_for_it_a_new_repository_is_as_its_organization_has_them(hub, suite):
    push(suite)
    (request,) = hub.asked("/repos/create")
    assert "visibility" not in json.loads(request.body)


def test_a_gated_repository_says_where_to_accept_its_terms(hub, suite, monkeypatch):
    push(suite)
    hub.repos["org/suite"].gated = True
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(HubError, match=r"gated\. Accept its terms at \S+org/suite, then set HF_T"):
        fetch_suite(SUITE)


@pytest.mark.parametrize("there", [True, False], ids=["an old", "a new"])
def test_a_token_that_may_only_read_cannot_send_to(there, hub, suite, monkeypatch):
    if there:
        push(suite)
    hub.requests.clear()
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(HubError, match=r"may not do that \(403\).*write permission"):
        push(suite)
    assert not hub.asked("/commit/")


def test_sending_without_a_token_says_how_to_get_one(hub, suite, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match=r"needs a token that may write: set HF_TOKEN"):
        push(suite)
    assert not hub.requests


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("hf_" + "x" * 34, r"does not accept the token \(401\)"),
        ("hf_" + "x" * 20 + "\0" + "y" * 14, "characters that no token has"),
        ("hf_" + "x" * 20 + "…" + "y" * 14, "characters that no token has"),
    ],
    ids=["unknown", "with a control character", "cut by an editor"],
)
@pytest.mark.parametrize("way", ["send", "fetch"])
def test_a_bad_token_is_told_and_never_shown(way, token, reason, hub, suite, monkeypatch):
    push(suite)
    from huggingface_hub import constants

    # As a login keeps it: no environment variable can hold some of these.
    Path(constants.HF_TOKEN_PATH).write_text(token)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match=reason) as caught:
        push(suite) if way == "send" else fetch_suite(SUITE)
    assert "xxx" not in str(caught.value) and caught.value.__suppress_context__
    Path(constants.HF_TOKEN_PATH).unlink()


# Damage


@pytest.mark.parametrize("kept_as", ["link", "copy"])
def test_a_damaged_cache_is_mended_from_the_hub(kept_as, hub, suite):
    """A copy: on disks without links."""
    push(suite)
    first = ids_of(suite)[0]
    weights = fetch_transcoder(SUITE, first) / "weights.safetensors"
    if kept_as == "copy":
        weights.unlink()
    weights.write_bytes(b"rubbish")
    assert contents(fetch_transcoder(SUITE, first)) == contents(suite / first)


def test_without_a_network_a_damaged_cache_is_an_error(hub, suite, monkeypatch):
    push(suite)
    first = ids_of(suite)[0]
    weights = fetch_transcoder(SUITE, first) / "weights.safetensors"
    weights.resolve().write_bytes(b"rubbish")
    hub.broken = 503
    with pytest.raises(CheckpointError, match=r"weights\.safetensors is not what .* Fetch hf://"):
        fetch_transcoder(SUITE, first)


@pytest.mark.parametrize("file", ["weights.safetensors", "config.json", "sha256.json"])
@pytest.mark.parametrize("change", ["altered", "absent"])
def test_what_was_damaged_on_the_hub_is_an_error(change, file, hub, suite):
    push(suite)
    first = ids_of(suite)[0]
    repo = hub.repos["org/suite"]
    files = repo.commits[repo.branches["main"]]
    if change == "absent":
        del files[f"{first}/{file}"]
    else:
        files[f"{first}/{file}"] += b" "
        if file == "sha256.json":
            files[f"{first}/{file}"] = b'{"config.json": "0", "../x": "0"}'
    listed = not (change == "absent" and file == "config.json")
    expected = (CheckpointError, file) if listed else (HubError, "no transcoder")
    with pytest.raises(expected[0], match=expected[1]):
        fetch_transcoder(SUITE, first)


def test_a_damaged_or_empty_folder_is_not_sent(hub, suite, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, reason in (
        (tmp_path / "absent", "there is no folder"),
        (tmp_path / "empty", "holds no transcoder to send"),
    ):
        with pytest.raises(CheckpointError, match=reason):
            push(folder)
    with open(suite / ids_of(suite)[1] / "weights.safetensors", "r+b") as file:
        file.seek(200)
        file.write(b"\xff\xff")
    with pytest.raises(CheckpointError, match=r"weights.*sha256.json says.*Export it again"):
        push(suite)
    assert not hub.requests


# Without a network


def test_what_was_fetched_is_there_without_a_network(hub, suite, monkeypatch):
    from huggingface_hub import constants

    push(suite)
    first, second = ids_of(suite)
    fetched = fetch_transcoder(SUITE, first)
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch_transcoder(SUITE, first[:-1]) == fetched
    with pytest.raises(HubError, match="its cache here lacks some of it"):
        fetch_transcoder(SUITE, second)
    with pytest.raises(HubError, match="holds 2 transcoders"):  # although one is here
        fetch_transcoder(SUITE)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE forbids"):
        fetch_transcoder("hf://org/other", first)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE forbids"):
        push(suite)
    assert not hub.requests


@pytest.mark.parametrize("way", ["send", "fetch"])
def test_an_unreachable_hub_is_told_at_once(way, suite, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    point_at(f"http://127.0.0.1:{port}", tmp_path / "cache", monkeypatch)
    started = time.monotonic()
    with pytest.raises(HubError, match=r"hf://org/suite: the Hub cannot be reached .*proxy and"):
        push(suite) if way == "send" else fetch_suite(SUITE)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("status", "reason"), [(500, "out of order"), (429, "too many requests"), (418, r"\(418\)")]
)
def test_a_hub_in_trouble_is_told(status, reason, hub, suite):
    hub.broken = status
    with pytest.raises(HubError, match=reason):
        fetch_suite(SUITE)
    with pytest.raises(HubError, match=reason):
        push(suite)


def test_a_cache_that_cannot_be_written_is_told(hub, suite, tmp_path):
    push(suite)
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(HubError, match=r"cache\S* cannot be read or written here"):
        fetch_suite(SUITE)


@pytest.mark.parametrize("asked", ["model", "text"])
def test_a_token_cut_by_an_editor_is_told_wherever_the_hub_is_asked(asked, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 20 + "…")
    with pytest.raises(MtcError, match="characters that no token has") as caught:
        read_config("org/thing") if asked == "model" else hub_commit(DataConfig(path="org/thing"))
    assert "xxx" not in str(caught.value)
