# SPDX-License-Identifier: Apache-2.0
"""The option --json of every verb: found unwritable before the work is done, not after."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

Command = TypeVar("Command", bound=Callable[..., Any])


def writable(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """The path, its folder made.

    Raises:
        click.BadParameter: nothing can be written there.
    """
    if path is None:
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"{path.parent} cannot be made: {error.strerror}"
        raise click.BadParameter(f"expected a file that can be written; {reason}") from error
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise click.BadParameter(f"expected a file that can be written, got {path}")
    return path


def writable_folder(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """The path of a folder, made where it was not there.

    Raises:
        click.BadParameter: it cannot be made, or nothing can be written there.
    """
    if path is None:
        return None
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.BadParameter(f"expected a folder, {path} cannot be made: {error.strerror}") from error
    if not os.access(path, os.W_OK):
        raise click.BadParameter(f"expected a folder that can be written, got {path}")
    return path


def json_option(text: str) -> Callable[[Command], Command]:
    """The option `--json FILE`, passed as `json_path`."""
    kind = click.Path(path_type=Path, dir_okay=False)
    return click.option("--json", "json_path", type=kind, callback=writable, help=text)


def write_json(document: Any, path: Path) -> None:
    """Writes a document for people and programs to read."""
    path.write_text(json.dumps(_finite(document), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    """The same with null in the place of numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class FiniteRange(click.FloatRange):
    """A range of numbers, of which nan and inf are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"expected a finite number, got {value!r}", param, ctx)
        return number


def numbers(context: click.Context, parameter: click.Parameter, text: str) -> tuple[int, ...]:
    """A callback for options like `1,2,4`: whole numbers of at least 1.

    Raises:
        click.BadParameter: something else.
    """
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise click.BadParameter(f"expected whole numbers of at least 1 like 1,8,32, got {text!r}")
    return found


def wide_console() -> Console:
    """The terminal, or 140 columns where the output goes into a file: tables keep their figures."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=140)
