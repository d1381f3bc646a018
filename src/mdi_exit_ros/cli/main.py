# SPDX-License-Identifier: Apache-2.0
"""The command `mdi-exit`; a verb's module is imported only when that verb is used."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import version

import click

from mdi_exit_ros.errors import MdiExitError
from mdi_exit_ros.policy.compiled import check_checkout

VERBS = {
    "run": "Run a cluster on this machine and account for every frame.",
    "top": "Show what a running cluster does.",
    "bench": "Measure frames/s through the graph against a bare loop.",
    "simulate": "Simulate a cluster, from measured times and recorded answers.",
    "sweep": "Simulate a scenario with other constants, in parallel, and compare.",
    "paper": "Make all figures of the experiments, simulated.",
    "train": "Train a multi-exit network and write a model directory.",
    "evaluate": "Measure a model's accuracy and cost on labelled images.",
    "calibrate": "Fit a model's temperatures and thresholds to labelled images.",
    "plan": "Say which computers are needed, and which should run which segments.",
    "profile": "Measure how long every segment takes on this computer.",
    "doctor": "Say what is installed, what works and what to do about the rest.",
}
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command = getattr(importlib.import_module(f"mdi_exit_ros.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.command(cls=_LazyGroup, name="mdi-exit")
@click.version_option(version("mdi_exit_ros"), message="mdi-exit %(version)s")
@click.pass_context
def mdi_exit(context: click.Context) -> None:
    """Model-distributed inference with early exits on ROS 2."""
    if context.invoked_subcommand != "doctor":  # which says it among other things
        check_checkout()


def main() -> None:
    """Runs the verb on the command line; exits 2 for what a user can put right and 130 after Ctrl-C."""
    sys.exit(run())


def run(arguments: list[str] | None = None) -> int:
    """Runs one verb and answers with its exit status."""
    try:
        status = mdi_exit.main(arguments, prog_name="mdi-exit", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except MdiExitError as error:
        click.echo(f"error: {error}", err=True)
        return EXIT_USER_ERROR
    except OSError as error:
        if error.filename is None:
            raise
        click.echo(f"error: {error.filename}: {error.strerror}", err=True)
        return EXIT_USER_ERROR
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    return status if isinstance(status, int) else 0


if __name__ == "__main__":
    main()
