"""What the commands share: how they fail, and the options that several of them take."""

from __future__ import annotations

import gc
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from mtc_core.credentials import redacted
from mtc_core.errors import MtcError
from mtc_core.places import place
from orchestrator.messages import harmless

USER_ERROR, BUG, INTERRUPTED, READER_GONE = 2, 3, 130, 141


def fail(message: str, code: int = USER_ERROR) -> NoReturn:
    """One message on stderr, and the end."""
    click.echo(harmless(redacted(message)), err=True)
    raise SystemExit(code)


@contextmanager
def uncollected() -> Iterator[None]:
    """For a command that is mostly imports, which leave no garbage: to look for it again and again
    took a twentieth of its time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


class FilledCommand(click.Command):
    """One of which no argument may be blank: in a script, that is a variable that was not set, and
    the default in its place would do something else."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        if ctx.resilient_parsing:  # a shell asks how the line may go on
            return rest
        for parameter in self.params:
            value = ctx.params.get(str(parameter.name))
            for one in value if isinstance(value, tuple) else (value,):
                if isinstance(one, str) and not one.strip():
                    text = "is blank; leave it out, or see whether its variable is set"
                    raise click.BadParameter(text, ctx, parameter)
        return rest


class Commands(click.Group):
    """A group whose commands may raise MtcError: the message is all that the user sees."""

    command_class = FilledCommand

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MtcError as error:
            fail(str(error))
        except BrokenPipeError:
            # Python flushes stdout once more at exit; there is nobody to read it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(READER_GONE) from None
        except KeyboardInterrupt:
            fail("interrupted", INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception:
            traceback.print_exc()
            fail("this is a bug of mtc-orchestrate, not of your manifest; please report it", BUG)


class Size(click.ParamType):
    """Bytes, as people write them: `80GB`, `24 GiB`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([MGT])(i?)B?\s*", value, re.IGNORECASE)
        if not match:
            self.fail(f"{value!r} is no size such as 80GB or 24GiB", param, ctx)
        power = "MGT".index(match[2].upper()) + 2
        return round(float(match[1]) * (1024 if match[3] else 1000) ** power)


Command = Callable[..., Any]


def set_option(command: Command) -> Command:
    """`--set KEY=VALUE`, any number of times."""
    return click.option(
        "overrides",
        "--set",
        multiple=True,
        metavar="KEY=VALUE",
        help="Replace a value of the manifest, such as train.tokens=1M.",
    )(command)


def hardware_options(command: Command) -> Command:
    """Hardware that is not here, for `plan`."""
    nodes, gpus = click.IntRange(1, 10_000), click.IntRange(1, 64)
    for option in (
        click.option(
            "--gpu-memory", type=Size(), metavar="SIZE", help="Free memory of each of these GPUs."
        ),
        click.option(
            "--gpus-per-node", type=gpus, metavar="G", help="GPUs of each of these nodes."
        ),
        click.option(
            "--nodes",
            type=nodes,
            metavar="N",
            help="Plan for so many nodes instead of this machine; with any of these three options "
            "the others are 1 node, 1 GPU, memory unknown.",
        ),
    ):
        command = option(command)
    return command


def root_option(command: Command) -> Command:
    """`--root`, the folder of all runs."""
    return click.option(
        "--root",
        default="runs",
        show_default=True,
        callback=lambda _context, _option, written: str(place(written)),  # ~: no shell does it
        help="Folder that holds the run folders.",
    )(command)


def json_option(command: Command) -> Command:
    """`--json`, for every command that prints a table."""
    return click.option("as_json", "--json", is_flag=True, help="Print JSON.")(command)
