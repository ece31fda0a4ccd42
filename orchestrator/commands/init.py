"""`init`: write a manifest to start from."""

from __future__ import annotations

import errno
import shlex
from pathlib import Path

import click

STDOUT = "-"
PACKED = 3  # times smaller is compressed text, about


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
    from orchestrator.manifest.load import load_text
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
    size, columns = _look_at(data) if data else (None, True)
    name = starting_name(model, sites)
    text = starting_manifest(name, model, shape, pairs, data or HUB_DATA, size, columns)
    load_text(text, "this would be written, and is wrong")  # a text without a holdout, say
    if out == STDOUT:
        click.echo(text, nl=False)
        return
    path = Path(out or f"{name}.yaml")
    _write_new(path, text)
    click.echo(f"wrote {path}; look at it, then")
    for command in ("plan", "run"):
        click.echo(f"  mtc-orchestrate {command} {shlex.quote(str(path))}")


def _look_at(data: str) -> tuple[int | None, bool]:
    """About how many bytes of text there are, None if nobody knows; and whether it has columns."""
    from mtc_core.errors import ConfigError, DataError
    from mtc_core.tokens.data_config import DataConfig
    from mtc_core.tokens.text import PYTHON_DOCS, source_listing, text_bytes

    try:
        listing = source_listing(DataConfig(path=data))
    except (ConfigError, DataError) as error:
        raise ConfigError(f"--data {data}: {str(error).removeprefix('data.path: ')}") from None
    packed = PACKED * sum(size for _, size in listing) or None
    plain = data == PYTHON_DOCS or (bool(listing) and all(n.endswith(".txt") for n, _ in listing))
    return text_bytes(listing) or packed, not plain


def _write_new(path: Path, text: str) -> None:
    """Raises ConfigError where a file is already, or cannot be."""
    from mtc_core.errors import ConfigError

    try:
        file = open(path, "x", encoding="utf-8")  # noqa: SIM115 (a failed write takes it away)
        try:
            with file:
                file.write(text)
        except OSError:
            path.unlink()
            raise
    except OSError as error:
        why = "is there already" if error.errno == errno.EEXIST else f"({error.strerror})"
        raise ConfigError(f"{path} {why}; give another file with --out") from None
