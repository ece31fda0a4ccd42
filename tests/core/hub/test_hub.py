"""Sending to the Hugging Face Hub and fetching from it.

The real huggingface_hub speaks to a local stand-in for the Hub (tests/stand_ins/hub.py): nothing
here shows what the Hub itself answers today. Xet, its newer way to send large files, is off.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtc_core import MatryoshkaTranscoder
from mtc_core.errors import HubError
from mtc_core.hub import HubAddress, fetch_suite, fetch_transcoder
from tests.core.hub.client import SUITE, ids_of, push
from tests.core.hub.suites import contents, make_suite
from tests.stand_ins.hub_state import READER, WRITER, Repo

# Of huggingface_hub's own LFS uploads.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


# Round trips


def test_a_suite_comes_back_byte_for_byte(hub, suite):
    assert push(suite) == f"{hub.url}/org/suite/tree/{hub.repos['org/suite'].branches['main']}"
    assert contents(fetch_suite(SUITE)) == contents(suite)


def test_one_transcoder_comes_without_the_others_and_loads(hub, suite):
    push(suite)
    first, second = ids_of(suite)
    folder = fetch_transcoder(SUITE, first)
    assert contents(folder) == contents(suite / first)
    assert MatryoshkaTranscoder.load(folder).spec.id == first
    assert {path.name for path in folder.parent.iterdir()} == {first}
    assert not [request for request in hub.asked("/resolve/") if second in request.path]


def test_a_large_file_of_any_name_goes_through_the_storage_and_comes_back(hub, suite):
    (suite / "figures.dat").write_bytes(os.urandom(1 << 20) * 11)
    push(suite)
    sent = [request for request in hub.requests if request.method == "PUT"]
    assert len(sent) == 3 and {request.server for request in sent} == {"storage"}
    assert contents(fetch_suite(SUITE)) == contents(suite)


def test_a_suite_is_sent_in_one_commit_and_hidden_files_stay(hub, suite):
    (suite / ".secret").write_text("mine")
    for i in range(60):
        (suite / f"note-{i}.txt").write_text(str(i))
    push(suite)
    assert len(hub.asked("/commit/")) == 1
    (files,) = list(hub.repos["org/suite"].commits.values())[1:]
    assert ".secret" not in files and "note-59.txt" in files


def test_sending_again_replaces_what_changed_and_leaves_other_files(hub, suite):
    push(suite)
    hub.repos["org/suite"].commits[hub.repos["org/suite"].branches["main"]]["more.txt"] = b"more"
    (suite / "README.md").write_text("---\nlicense: mit\n---\n# Again\n")
    push(suite)
    assert contents(fetch_suite(SUITE)).keys() == {*contents(suite), "more.txt"}
    assert (fetch_suite(SUITE) / "README.md").read_text().endswith("# Again\n")


def test_a_revision_is_a_branch_to_send_to_and_any_state_to_fetch(hub, suite):
    push(suite)
    (suite / "README.md").write_text("---\nlicense: mit\n---\n# Second\n")
    commit = push(suite, f"{SUITE}@try/out").rpartition("/")[2]
    for name in (f"{SUITE}@try/out", f"{SUITE}@{commit}"):
        assert contents(fetch_suite(name)) == contents(suite)
    assert "Second" not in (fetch_suite(SUITE) / "README.md").read_text()
    with pytest.raises(HubError, match="is a commit, which nothing can change"):
        push(suite, f"{SUITE}@{commit}")
    with pytest.raises(HubError, match=r"org/suite@v9: it has no revision 'v9'"):
        fetch_transcoder(f"{SUITE}@v9", ids_of(suite)[0])


def test_real_environment_variables_lead_to_the_same(hub, suite, tmp_path):
    """No patched constants: a process of its own, as users have it."""
    code = (
        "import sys; from pathlib import Path; from mtc_core.hub import *; "
        "push_folder(Path(sys.argv[1]), 'hf://org/suite', message='m', private=True); "
        "print(fetch_suite('hf://org/suite'))"
    )
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    own |= {"HF_HUB_DISABLE_XET": "1", "HF_TOKEN": WRITER}
    done = subprocess.run(
        [sys.executable, "-c", code, suite],
        env=os.environ | own,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert contents(done.stdout.strip()) == contents(suite)
    assert hub.repos["org/suite"].private
    assert WRITER not in done.stdout + done.stderr


# Ids


def test_the_beginning_of_an_id_is_enough_if_no_other_has_it(hub, suite):
    push(suite)
    first, second = ids_of(suite)
    common = first.rpartition("-")[0]
    assert fetch_transcoder(SUITE, first[: len(common) + 2]).name == first
    with pytest.raises(HubError, match=f"2 transcoders of {SUITE} begin with .*: .*{second}"):
        fetch_transcoder(SUITE, common)


def test_a_wrong_or_missing_id_lists_those_there_are(hub, suite):
    push(suite)
    first, second = sorted(ids_of(suite))
    with pytest.raises(HubError, match=f"no transcoder 'x'; it holds {first}, {second}"):
        fetch_transcoder(SUITE, "x")
    with pytest.raises(HubError, match=f"holds 2 transcoders; name one of {first}, {second}"):
        fetch_transcoder(SUITE)


def test_a_single_transcoder_needs_no_id(hub, tmp_path):
    (only,) = make_suite(tmp_path / "one", 5)
    push(tmp_path / "one")
    assert fetch_transcoder(SUITE).name == only


def test_a_repository_of_something_else_is_told(hub):
    hub.repos["org/suite"] = Repo()
    hub.repos["org/suite"].commit("main", {"config.json": b"{}", "model.safetensors": b""})
    for fetch in (fetch_suite, fetch_transcoder):
        with pytest.raises(HubError, match=r"hf://org/suite holds no transcoder: none of its"):
            fetch(SUITE)


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        "org/suite",
        "hf://suite",
        "hf://org/suite/id",
        "hf://org/suite@",
        "hf://org/a--b",
        "hf://a/b c",
    ],
)
def test_a_bad_address_shows_a_good_one(address):
    with pytest.raises(HubError, match=r"is no address on the Hub") as caught:
        HubAddress.parse(address)
    assert address in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [f"hf://{READER}@org/suite", f"hf://org/suite@{READER}", "hf://user:pass@org/suite", READER],
)
def test_an_address_with_a_token_is_refused_and_not_repeated(address, monkeypatch):
    with pytest.raises(HubError, match="looks like a token or a password") as caught:
        HubAddress.parse(address)
    assert "rrr" not in str(caught.value) and "pass@" not in str(caught.value)


def test_an_address_reads_back_as_it_was_written():
    for address in ("hf://org/a.b-c_d", "hf://org/name@v1.0", "hf://org/name@refs/pr/1"):
        assert str(HubAddress.parse(address)) == address
