"""Links in a run folder: those that stay in it, those that lead out, and those of W&B."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtc_core.errors import ConfigError
from orchestrator.run_folder.links import refuse_links_out


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "small"
    (folder / "transcoders" / "one").mkdir(parents=True)
    (folder / "wandb" / "run-1" / "logs").mkdir(parents=True)
    (folder / "log.txt").touch()
    (tmp_path / "elsewhere").mkdir()
    return folder


def test_links_that_stay_inside_and_the_folder_itself_as_one_are_allowed(run: Path) -> None:
    (run / "latest").symlink_to("transcoders/one")
    (run / "transcoders" / "log").symlink_to(run / "log.txt")
    (run / "circle").symlink_to("circle")
    (run.parent / "alias").symlink_to("small")
    refuse_links_out(run)
    refuse_links_out(run.parent / "alias")
    refuse_links_out(run.parent / "no-such-run")


@pytest.mark.parametrize("place", ["transcoders/one/final", "log2.txt", "wandb2", "wandb/../w"])
@pytest.mark.parametrize("target", ["{up}/elsewhere", "{up}/not-there", "../../../..", "/"])
def test_one_that_leads_out_is_named(place: str, target: str, run: Path) -> None:
    (run / place).symlink_to(target.format(up=run.parents[1]))
    with pytest.raises(ConfigError, match=r"is a link to .*, out of the run folder"):
        refuse_links_out(run)


def test_what_wandb_links_to_is_its_own_affair_but_not_where_it_lies(run: Path) -> None:
    (run / "wandb" / "run-1" / "logs" / "debug-core.log").symlink_to(run.parents[1] / "elsewhere")
    refuse_links_out(run)
    (run / "wandb").rename(run.parents[1] / "elsewhere" / "wandb")
    (run / "wandb").symlink_to(run.parents[1] / "elsewhere" / "wandb")
    with pytest.raises(ConfigError, match="wandb: is a link to"):
        refuse_links_out(run)
