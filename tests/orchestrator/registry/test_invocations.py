"""Each invocation leaves a begin and an end, written once under a number of its own."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import pytest

from mtc_core.errors import ConfigError
from orchestrator.registry.invocations import begin, read_invocations

BEGUN = {"backend": "ray", "cells": 2, "overrides": ["train.tokens=1M"], "manifest": "/m.yaml"}
ENDED = {"exit_code": 0, "outcome": "done", "step": 40, "rows_trained": 10240, "seconds": {"a": 1}}


def test_what_the_driver_says_is_kept_with_where_and_when(tmp_path: Path) -> None:
    begin(tmp_path, BEGUN).end(ENDED)
    at_begin, at_end = (
        json.loads((tmp_path / "invocations" / f"0001.{name}.json").read_text())
        for name in ("begin", "end")
    )
    assert BEGUN.items() <= at_begin.items() and ENDED.items() <= at_end.items()
    assert at_begin["pid"] == os.getpid() and at_begin["versions"]["torch"].startswith("2.")
    assert at_begin["began"] <= at_end["ended"]
    (row,) = read_invocations(tmp_path)
    assert (row.backend, row.cells, row.outcome, row.exit_code) == ("ray", 2, "done", 0)
    assert (row.step, row.rows_trained, row.began) == (40, 10240, at_begin["began"])
    assert json.loads(row.at_end or "") == at_end and row.damaged is None


def test_numbers_rise_and_a_killed_driver_keeps_its_own(tmp_path: Path) -> None:
    begin(tmp_path, BEGUN).end(ENDED)
    killed = begin(tmp_path, BEGUN)
    (tmp_path / "invocations" / ".0002.end.json.77.tmp").write_text("{")  # killed in its end
    last = begin(tmp_path, BEGUN)
    assert (killed.number, last.number) == (2, 3)
    rows = list(read_invocations(tmp_path))
    assert [(row.number, row.ended is None) for row in rows] == [(1, False), (2, True), (3, True)]
    (tmp_path / "invocations" / "0002.begin.json").rename(
        tmp_path / "invocations" / "10000.begin.json"
    )
    assert begin(tmp_path, BEGUN).number == 10001
    assert [row.number for row in read_invocations(tmp_path)] == [1, 3, 10000, 10001]
    assert not list(tmp_path.rglob("*.tmp"))


def test_an_end_is_written_once(tmp_path: Path) -> None:
    invocation = begin(tmp_path, BEGUN)
    invocation.end(ENDED)
    with pytest.raises(AssertionError):
        invocation.end({"exit_code": 3})
    assert next(read_invocations(tmp_path)).exit_code == 0


def test_a_disk_that_refuses_stops_a_beginning_but_no_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    invocation = begin(tmp_path, BEGUN)
    shutil.rmtree(tmp_path / "invocations")
    with caplog.at_level(logging.WARNING, "mtc"):
        invocation.end(ENDED)
    (record,) = caplog.records
    assert record.message.startswith(f"{tmp_path}/invocations/0001.end.json cannot be written")
    (tmp_path / "invocations").touch()
    with pytest.raises(ConfigError, match="invocations: cannot be written"):
        begin(tmp_path, BEGUN)


def test_a_run_of_an_earlier_version_has_none(tmp_path: Path) -> None:
    assert list(read_invocations(tmp_path)) == []
