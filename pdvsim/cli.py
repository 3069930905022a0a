"""`pdvsim`: finds commands by name and loads one only when it is called.

Each package brings its own commands, in modules `<package>/commands/<name>.py` with a click
command called `command`. Help texts stand in the table here so that `--help` imports nothing.
Errors are one sentence on stderr: exit code 2, or 130 for Ctrl-C.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import click

from pdvsim import __version__
from pdvsim.errors import InputError, MissingExtraError, PdvsimError


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command lives.

    Attributes:
        extra: what to install for it beyond the core; empty for nothing.
    """

    package: str
    help: str
    extra: str = ""


COMMANDS = {
    "predict": Entry("pdvsim", "Predict throughput and latency of architectures from a profile."),
    "bench": Entry("realengine", "Run the same cells on the real engine.", "engine"),
    "calibrate": Entry("calibration", "Measure a machine and write its profile.", "engine"),
    "validate": Entry("calibration", "Hold predictions against real runs.", "engine"),
    "reproduce": Entry("pdvsim", "Reproduce a published table from its own first rows."),
    "explain": Entry("pdvsim", "Split latency into its causes."),
    "crossover": Entry("pdvsim", "Find the loads where one architecture overtakes another."),
    "ablate": Entry("pdvsim", "Switch mechanisms off and see what they cost."),
    "architectures": Entry("pdvsim", "What each architecture is, and what can be set in it."),
    "profiles": Entry("pdvsim", "Calibrated machines: list, show, compare, check."),
    "audit": Entry("pdvsim", "Hold a benchmark table against arithmetic."),
    "report": Entry("reports", "Render the JSON of another command as one HTML page."),
}

PACKAGES = {entry.package for entry in COMMANDS.values()}


def exists(name: str) -> bool:
    """Whether the command's module is installed. Imports nothing."""
    spec = importlib.util.find_spec(COMMANDS[name].package)
    folders = spec.submodule_search_locations if spec is not None else None
    return any((Path(folder) / "commands" / f"{name}.py").is_file() for folder in folders or ())


def load(name: str) -> ModuleType:
    """The module of the command called `name`; commands reach each other through this."""
    return importlib.import_module(f"{COMMANDS[name].package}.commands.{name}")


def missing(name: str, error: ModuleNotFoundError) -> MissingExtraError:
    """What to tell someone whose command `name` failed to import something."""
    extra = COMMANDS[name].extra
    remedy = f"'pdvsim[{extra}]'" if extra else "pdvsim"
    return MissingExtraError(
        f"pdvsim {name} needs the package {error.name!r}, which is not installed; "
        f"run: pip install {remedy}"
    )


class CommandsByName(click.Group):
    """A group whose commands are looked up in `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in COMMANDS if exists(name)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS or not exists(cmd_name):
            return None
        command: click.Command = load(cmd_name).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            known = ", ".join(self.list_commands(ctx))
            raise InputError(f"unknown command {args[0]!r}; known are {known}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].help) for name in self.list_commands(ctx)])


@click.group(
    cls=CommandsByName,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="pdvsim", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Which scheduling architecture for speculative decoding wins at which load, and why."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run(arguments: Sequence[str]) -> int:
    """Run the command line `arguments`; returns the exit code."""
    if sys.stdout is None:
        return _refuse("stdout is closed, and results are printed there; > /dev/null drops them")
    try:
        code = cli.main(list(arguments), prog_name="pdvsim", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        return _refuse(error.format_message())
    except PdvsimError as error:
        return _refuse(str(error))
    except ModuleNotFoundError as error:
        name = next((word for word in arguments if word in COMMANDS), None)
        if name is None or (error.name or "").partition(".")[0] in PACKAGES:
            raise  # one of our own modules: a bug, not something that the user can install
        return _refuse(str(missing(name, error)))
    except (click.Abort, KeyboardInterrupt):
        print("pdvsim: interrupted", file=sys.stderr)
        return 130
    except (BrokenPipeError, SystemExit):  # by `| head`; click makes an exit of it
        _drop_stdout()
        return 128 + signal.SIGPIPE  # the shell's name for an end by that signal
    except OSError as error:
        _drop_stdout()
        return _refuse(f"{error.filename or 'cannot write the output'}: {error.strerror or error}")
    except MemoryError:
        return _refuse("not enough memory; ask for less at a time")
    return code if isinstance(code, int) else 0


def _prepare_streams() -> None:
    for name in ("COLUMNS", "LINES"):  # of which rich makes numbers
        if not os.environ.get(name, "1").isdecimal():
            del os.environ[name]
    for descriptor in (0, 1, 2):  # a closed one would be given to the next file that is opened
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_stdout() -> None:
    """What is left to print would fail again when Python exits."""
    with suppress(OSError):  # no file: under a test
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refuse(message: str) -> int:
    print(f"pdvsim: {' '.join(message.split())}", file=sys.stderr)
    return 2


def main() -> None:
    """Entry point of the console script."""
    _prepare_streams()
    sys.exit(run(sys.argv[1:]))
