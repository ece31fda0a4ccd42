"""Suites as W&B artifacts, with a scripted stand-in for the wandb module
(tests/stand_ins/wandb_artifacts.py); the real one where it needs no server."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtc_core.errors import CheckpointError, HubError
from mtc_core.wandb_artifacts import fetch_wandb, fetch_wandb_suite, push_wandb
from tests.core.hub.client import ids_of
from tests.core.hub.suites import contents, make_suite
from tests.stand_ins.hub import stand_in_hub
from tests.stand_ins.wandb_artifacts import ScriptedWandb

KEY = "0123456789" * 4
ADDRESS = "team/project/suite:v0"


@pytest.fixture
def scripted(tmp_path, monkeypatch):
    """In the place of wandb; its server is any that answers."""
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("MTC_CACHE", str(tmp_path / "cache"))
    with stand_in_hub() as anything:
        scripted = ScriptedWandb(anything.url)
        monkeypatch.setitem(sys.modules, "wandb", scripted)
        yield scripted


def push(suite, project="team/project"):
    return push_wandb(suite, project, "suite", {"model": "tiny"})


def test_a_suite_comes_back_byte_for_byte_in_the_version_asked_for(scripted, suite):
    assert push(suite) == ADDRESS
    before = contents(suite)
    (suite / "README.md").write_text("second")
    assert push(suite) == "team/project/suite:v1"
    assert contents(fetch_wandb_suite(ADDRESS)) == before
    assert contents(fetch_wandb_suite("team/project/suite:latest")) == contents(suite)
    assert contents(fetch_wandb_suite("team/project/suite")) == contents(suite)


def test_one_transcoder_comes_without_the_others(scripted, suite):
    push(suite)
    first, second = sorted(ids_of(suite))
    folder = fetch_wandb(ADDRESS, first[:-1])
    assert contents(folder) == contents(suite / first)
    assert [path.name for path in folder.parent.iterdir()] == [first]
    with pytest.raises(HubError, match=f"holds 2 transcoders; name one of {first}, {second}"):
        fetch_wandb(ADDRESS)
    with pytest.raises(HubError, match=f"no transcoder 'x'; it holds {first}, {second}"):
        fetch_wandb(ADDRESS, "x")


def test_a_suite_is_an_artifact_of_its_type_in_a_run_that_sends_nothing_else(scripted, suite):
    (suite / ".secret").write_text("mine")
    assert push(suite, "project") == "me/project/suite:v0"
    artifact = scripted.logged["me/project/suite:v0"]
    assert (artifact.type, artifact.metadata) == ("transcoder-suite", {"model": "tiny"})
    assert artifact.files.keys() == contents(suite).keys()
    assert {tuple(sorted(options.items())) for options in artifact.options} == {
        (("policy", "immutable"), ("skip_cache", True))
    }
    (run,) = scripted.runs
    settings = run["settings"]
    assert settings.disable_code and settings.disable_git and settings.x_disable_stats
    assert settings.x_disable_meta and run["mode"] == "online"
    assert not Path(run["dir"]).exists()


def test_a_single_transcoder_needs_no_id(scripted, tmp_path):
    (only,) = make_suite(tmp_path / "one", 5)
    push(tmp_path / "one")
    assert fetch_wandb(ADDRESS).name == only


def test_a_damaged_artifact_or_folder_is_an_error(scripted, suite, tmp_path):
    push(suite)
    first = ids_of(suite)[0]
    scripted.logged[ADDRESS].files[f"{first}/weights.safetensors"] += b" "
    with pytest.raises(CheckpointError, match=r"weights\.safetensors is not what .* Delete"):
        fetch_wandb(ADDRESS, first)
    (suite / first / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"config\.json is not what .* Export it again"):
        push(suite)
    scripted.logged[ADDRESS].files.clear()
    for fetch in (fetch_wandb, fetch_wandb_suite):
        with pytest.raises(HubError, match="suite:v0 holds no transcoder"):
            fetch(ADDRESS)


# What W&B refuses


def test_an_unknown_artifact_says_what_to_check(scripted, suite):
    push(suite)
    with pytest.raises(HubError, match=r"no such artifact, or it is private.*WANDB_API_KEY"):
        fetch_wandb("team/project/suite:v7")


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        ("AuthenticationError", "Failed to verify", "the key is not accepted.*WANDB_API_KEY"),
        ("CommError", "returned error 401: no", "the key is not accepted.*WANDB_API_KEY"),
        ("CommError", "returned error 403: permission denied", "the account may not do that"),
        ("CommError", "returned error 500", "it did not work: returned error 500"),
    ],
)
@pytest.mark.parametrize("way", ["send", "fetch"])
def test_a_refusal_is_told_without_the_key(way, kind, text, reason, scripted, suite):
    scripted.failing = getattr(scripted.errors, kind)(f"{text} ({KEY})")
    with pytest.raises(HubError, match=reason) as caught:
        push(suite) if way == "send" else fetch_wandb_suite(ADDRESS)
    assert KEY not in str(caught.value) and caught.value.__suppress_context__


def test_without_a_key_or_online_mode_nothing_is_tried(scripted, suite, monkeypatch):
    scripted.key = None
    with pytest.raises(HubError, match=r"needs a key: set WANDB_API_KEY"):
        push(suite)
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(HubError, match=r"WANDB_MODE=offline keeps everything here"):
        push(suite)
    assert not scripted.runs


@pytest.mark.parametrize(
    ("key", "reason"),
    [("", "needs a key: set WANDB_API_KEY"), (KEY, "cannot be reached at http://127.0.0.1:9 ")],
    ids=["no key", "no network"],
)
def test_the_real_wandb_tells_at_once_of(key, reason, tmp_path):
    """In a process of its own: wandb keeps what it has read."""
    code = (
        "import time, mtc_core.wandb_artifacts as w\n"
        "started = time.monotonic()\n"
        "try: w.fetch_wandb('team/project/suite:v0')\n"
        "except w.HubError as error: print(error)\n"
        "assert time.monotonic() - started < 5\n"
    )
    own = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    with stand_in_hub() as anything:
        server = "http://127.0.0.1:9" if key else anything.url
        own |= {"HOME": str(tmp_path), "WANDB_BASE_URL": server, "WANDB_API_KEY": key}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=own,
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    assert reason in done.stdout
    assert KEY not in done.stdout + done.stderr


# Addresses


@pytest.mark.parametrize("address", ["suite", "a/b/c/d:v0", "team/project/suite:", "a/b c:v1"])
def test_a_bad_address_shows_a_good_one(address):
    with pytest.raises(HubError, match=r"no artifact on W&B; write entity/project/artifact:ver"):
        fetch_wandb(address)


def test_a_bad_project_or_name_is_told(suite):
    with pytest.raises(HubError, match="no project on W&B; write entity/project or project"):
        push_wandb(suite, "a/b/c", "suite", {})
    with pytest.raises(HubError, match="cannot name an artifact"):
        push_wandb(suite, "a/b", "a suite", {})


def test_an_address_with_a_key_is_refused_and_not_repeated(suite, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    for call in (
        lambda: fetch_wandb(f"{KEY}/project/suite:v0"),
        lambda: push_wandb(suite, f"https://user:{KEY[:20]}@wandb.ai/project", "suite", {}),
    ):
        with pytest.raises(HubError, match="looks like a token or a password") as caught:
            call()
        assert KEY[:10] not in str(caught.value)
