"""`init`: write a manifest to start from."""

from __future__ import annotations

import errno
from pathlib import Path

import click

STDOUT = "-"


@click.command()
@click.option("--model", default="gpt2", show_default=True, help="Hub id, folder or package.")
@click.option(
    "--sites",
    multiple=True,
    default=["mlp"],
    show_default=True,
    help="What is trained at every layer: `mlp`, `attention`, `layer`, SOURCE:TARGET "
    "(`ln2_normalized:mlp_out`), or one pair (`8.resid_post:10.resid_mid`). May be repeated.",
)
@click.option("--data", help="Text: Hub id, file or folder.  [default: a dataset of the Hub]")
@click.option("--out", help="File to write, or `-` for standard output.  [default: NAME.yaml]")
def init(model: str, sites: tuple[str, ...], data: str | None, out: str | None) -> None:
    """Write a commented manifest for a model, with sizes that suit it."""
    from mtc_core.tokens.data_config import DataConfig
    from mtc_core.tokens.text import source_listing, text_bytes
    from orchestrator.manifest.start import (
        HUB_DATA,
        read_pair,
        starting_manifest,
        starting_name,
    )
    from orchestrator.model_shapes import find_shape

    shape = find_shape(model, "main", online=True)
    assert shape is not None
    pairs = [read_pair(site, shape) for site in dict.fromkeys(sites)]
    size = text_bytes(source_listing(DataConfig(path=data))) if data else None
    name = starting_name(model, sites)
    text = starting_manifest(name, model, shape, pairs, data or HUB_DATA, size)
    if out == STDOUT:
        click.echo(text, nl=False)
        return
    path = Path(out or f"{name}.yaml")
    _write_new(path, text)
    click.echo(f"wrote {path}; look at it, then")
    for command in ("plan", "run"):
        click.echo(f"  mtc-orchestrate {command} {path}")


def _write_new(path: Path, text: str) -> None:
    """Raises ConfigError where a file is already, or cannot be."""
    from mtc_core.errors import ConfigError

    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        why = "is there already" if error.errno == errno.EEXIST else f"({error.strerror})"
        raise ConfigError(f"{path} {why}; give another file with --out") from None
