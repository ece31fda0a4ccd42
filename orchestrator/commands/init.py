"""`init`: write a manifest to start from."""

from __future__ import annotations

import errno
import shlex
from pathlib import Path

import click

from orchestrator.commands.options import FilledCommand

STDOUT = "-"


@click.command(cls=FilledCommand)
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
@click.option(
    "--from-cfg",
    "cfg",
    metavar="FILE",
    help="Instead of these three: a JSON config of the Matryoshka transcoder scripts, with "
    "model_name, source_site, dict_size, top_k, …",
)
@click.option("--out", help="File to write, or `-` for standard output.  [default: NAME.yaml]")
@click.pass_context
def init(
    context: click.Context,
    model: str,
    sites: tuple[str, ...],
    data: str | None,
    cfg: str | None,
    out: str | None,
) -> None:
    """Write a commented manifest for a model, with sizes that suit it."""
    notes: dict[str, str] = {}
    if cfg is None:
        name, text = _for_model(model, sites, data)
    else:
        _refuse_beside_cfg(context)
        from orchestrator.manifest.cfg_manifest import manifest_from_cfg

        made = manifest_from_cfg(Path(cfg))
        name, text, notes = made.name, made.text, made.notes
    if out == STDOUT:
        click.echo(text, nl=False)
        return
    path = Path(out or f"{name}.yaml")
    _write_new(path, text)
    for key, why in notes.items():
        click.echo(f"{key}: {why}")
    click.echo(f"wrote {path}; look at it, then")
    for command in ("plan", "run"):
        click.echo(f"  mtc-orchestrate {command} {shlex.quote(str(path))}")


def _for_model(model: str, sites: tuple[str, ...], data: str | None) -> tuple[str, str]:
    """Name and text of a manifest with sizes of ours."""
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
    return name, text


def _refuse_beside_cfg(context: click.Context) -> None:
    from click.core import ParameterSource

    from mtc_core.errors import ConfigError

    given = [
        f"--{name}"
        for name in ("model", "sites", "data")
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    ]
    if given:
        raise ConfigError(
            f"{' and '.join(given)} beside --from-cfg: the config says it; change that, or the "
            "manifest made of it"
        )


def _look_at(data: str) -> tuple[int | None, bool]:
    from mtc_core.errors import ConfigError, DataError
    from orchestrator.manifest.start import look_at_text

    try:
        return look_at_text(data)
    except (ConfigError, DataError) as error:
        raise ConfigError(f"--data {data}: {str(error).removeprefix('data.path: ')}") from None


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
