"""What a run holds out must not have been trained on by the runs whose weights it starts from."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from mtc_core.errors import ConfigError
from mtc_core.tokens.holdout import text_key
from mtc_core.tokens.token_store import TokenStore
from mtc_core.tokens.token_writer import TokenWriter
from orchestrator.run_folder.lineage import ancestors, check_held_out, unknown
from tests.core.tiny_text import BYTES, data_of, made_up_documents, write_jsonl


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    return write_jsonl(folder / "a.jsonl", made_up_documents(400, seed=random.randrange(2**31)))


def run(root: Path, name: str, path: Path, start: str | None = None, **data: Any) -> TokenStore:
    """A run folder with its tokens, and a record of what it started from."""
    writer = TokenWriter(root / name / "tokens", data_of(path, **data), BYTES)
    pins = {"init_from": starts(root, start) if start else {}}
    record = {"pins": pins, "specs": {}, "resources": {}}
    (root / name / "resolved.json").write_text(json.dumps(record))
    return writer.ensure(1)


def starts(root: Path, name: str) -> dict[str, dict[str, str]]:
    return {"t": {"folder": str(root / name / "transcoders" / "t" / "final"), "sha256": "-"}}


@pytest.mark.parametrize("fewer", [64, 256, 512])
def test_the_same_holdout_or_a_part_of_it_is_taken(tmp_path: Path, text: Path, fewer: int) -> None:
    run(tmp_path, "old", text, holdout_tokens=512)
    new = run(tmp_path, "new", text, holdout_tokens=fewer, shuffle_tokens=2048)
    check_held_out(new, starts(tmp_path, "old"))


def test_a_larger_one_is_refused_with_what_to_set(tmp_path: Path, text: Path) -> None:
    old = run(tmp_path, "old", text, holdout_tokens=256)
    new = run(tmp_path, "new", text, holdout_tokens=1024)
    more = len(set(new.held_keys) - set(old.held_keys))
    assert 0 < more < len(new.held_keys)
    with pytest.raises(ConfigError) as error:
        check_held_out(new, starts(tmp_path, "old"))
    told = str(error.value)
    assert f"{more} of {len(new.held_keys)} documents that this run holds out" in told
    assert str(tmp_path / "old") in told
    assert "Set data.holdout_tokens: 256 and data.context_tokens: 16 as there" in told


def test_so_it_is_of_a_copy_of_the_text_and_not_of_another(tmp_path: Path, text: Path) -> None:
    run(tmp_path, "old", text, holdout_tokens=256)
    copied = run(tmp_path, "new", Path(shutil.copy(text, tmp_path)), holdout_tokens=1024)
    with pytest.raises(ConfigError, match="were not held out by"):
        check_held_out(copied, starts(tmp_path, "old"))
    others = write_jsonl(tmp_path / "b.jsonl", (f"other {i} words" * 3 for i in range(400)))
    check_held_out(run(tmp_path, "other", others, holdout_tokens=1024), starts(tmp_path, "old"))


def test_the_same_text_is_known_where_no_document_is_held_by_both(tmp_path: Path) -> None:
    """As another tokenizer may have it, of which the first candidates are too long."""
    text = write_jsonl(tmp_path / "a.jsonl", made_up_documents(400))
    for name in ("old", "new"):
        run(tmp_path, name, text, holdout_tokens=64)
    path = tmp_path / "new" / "tokens" / "holdout.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "held": ["another"]}))
    new = TokenStore(tmp_path / "new" / "tokens")
    with pytest.raises(ConfigError, match="1 of 1 documents"):
        check_held_out(new, starts(tmp_path, "old"))


def test_every_run_that_the_weights_have_been_through_counts(tmp_path: Path, text: Path) -> None:
    """Here the text of the one between is another, and says nothing of the first."""
    others = write_jsonl(tmp_path / "b.jsonl", (f"other {i} words" * 3 for i in range(400)))
    run(tmp_path, "first", text, holdout_tokens=256)
    run(tmp_path, "second", others, "first", holdout_tokens=256)
    folders = [tmp_path / "second", tmp_path / "first"]
    assert ancestors(starts(tmp_path, "second")) == folders
    third = run(tmp_path, "third", text, holdout_tokens=1024)
    with pytest.raises(ConfigError, match=r"not held out by .*/first, from whose weights"):
        check_held_out(third, starts(tmp_path, "second"))
    # The end of the chain, and a chain that comes back to itself.
    run(tmp_path, "first", text, "second", holdout_tokens=256)
    assert ancestors(starts(tmp_path, "second")) == folders


@pytest.mark.parametrize("damage", ["gone", "no holdout", "not json"])
def test_tokens_that_are_gone_are_told(tmp_path: Path, text: Path, damage: str) -> None:
    run(tmp_path, "old", text, holdout_tokens=256)
    assert unknown(starts(tmp_path, "old")) == []
    tokens = tmp_path / "old" / "tokens"
    if damage == "gone":
        shutil.rmtree(tokens)
    elif damage == "no holdout":
        (tokens / "holdout.json").unlink()
    else:
        (tokens / "holdout.json").write_text("{")
    (told,) = unknown(starts(tmp_path, "old"))
    assert told.startswith(f"init_from: {tmp_path / 'old'} has no tokens/holdout.json any more")
    check_held_out(run(tmp_path, "new", text, holdout_tokens=1024), starts(tmp_path, "old"))


def grown(text: Path, folder: Path, more: int) -> Path:
    """With new documents at its end."""
    lines = text.read_text().splitlines()
    new = [json.dumps({"text": f"new {n} of {random.random()} words"}) for n in range(more)]
    (path := folder / "grown.jsonl").write_text("\n".join([*lines, *new]) + "\n")
    return path


def test_text_that_has_grown_is_taken_unless_more_is_held_out_of_it(
    tmp_path: Path, text: Path
) -> None:
    """Of a short text a tenth is held out at most, so that of the longer one more is: all new."""
    old = run(tmp_path, "old", text, holdout_tokens=4096)
    longer = grown(text, tmp_path, 600)
    new = run(tmp_path, "new", longer, holdout_tokens=4096)
    assert set(old.held_keys) < set(new.held_keys)
    check_held_out(new, starts(tmp_path, "old"))
    more = run(tmp_path, "more", longer, holdout_tokens=8192)
    assert len(more.held_keys) >= len(new.held_keys)
    with pytest.raises(ConfigError, match="were not held out by"):
        check_held_out(more, starts(tmp_path, "old"))


@pytest.mark.parametrize("place", [0, 40, 200])
def test_one_document_in_common_makes_no_text_the_same(
    tmp_path: Path, text: Path, place: int
) -> None:
    old = run(tmp_path, "old", text, holdout_tokens=1024)
    mine = [f"other {n} of {random.random()} words" for n in range(400)]
    by_key = {text_key(one): one for one in map(_text, text.read_text().splitlines())}
    mine.insert(place, by_key[old.held_keys[0]])
    new = run(tmp_path, "new", write_jsonl(tmp_path / "b.jsonl", mine), holdout_tokens=1024)
    check_held_out(new, starts(tmp_path, "old"))


def _text(line: str) -> str:
    return str(json.loads(line)["text"])


def test_an_ancestor_whose_record_is_damaged_is_told_and_refuses_nothing(
    tmp_path: Path, text: Path
) -> None:
    run(tmp_path, "first", text, holdout_tokens=256)
    run(tmp_path, "second", text, "first", holdout_tokens=256)
    (tmp_path / "first" / "resolved.json").write_text("{")
    (told,) = unknown(starts(tmp_path, "second"))
    assert told.startswith(f"init_from: {tmp_path / 'first'} has no sound resolved.json")
    check_held_out(run(tmp_path, "new", text, holdout_tokens=256), starts(tmp_path, "second"))
