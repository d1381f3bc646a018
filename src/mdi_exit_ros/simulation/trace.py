# SPDX-License-Identifier: Apache-2.0
"""Traces: every action of every core, line by line, to be kept, replayed and compared."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any, TextIO

from mdi_exit_ros.errors import DataError
from mdi_exit_ros.simulation.scenario import Scenario, make_scenario

FORMAT = "mdi_exit simulation trace 1"


def line_of(time: float, node: str, action: Any) -> str:
    """One action as a line."""
    return f"{time!r} {node} {action!r}"


class TraceWriter:
    """Writes a trace while its simulation runs; the scenario stands in front."""

    def __init__(self, file: TextIO, scenario: Scenario) -> None:
        self._file = file
        file.write(json.dumps({"format": FORMAT, "scenario": scenario.model_dump()}) + "\n")

    def note(self, time: float, node: str, action: Any) -> None:
        """Takes down one action."""
        self._file.write(line_of(time, node, action) + "\n")


def read_header(path: Path) -> Scenario:
    """The scenario of a trace.

    Raises:
        DataError: the file cannot be read, or is no trace.
    """
    try:
        with path.open("rb") as file:
            header = json.loads(file.readline())
        if header["format"] != FORMAT:
            raise ValueError(f"its format is {header['format']!r}")
        content = header["scenario"]
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no trace of mdi-exit simulate --trace: {error}") from error
    return make_scenario(content, origin=path)


def lines_of(path: Path) -> Generator[str, None, None]:
    """The actions of a trace."""
    with path.open(encoding="utf-8", errors="replace") as file:
        next(file, None)
        for line in file:
            yield line.rstrip("\n")


class TraceComparer:
    """Holds a simulation against a trace while it runs.

    Attributes:
        same: actions that were equal, from the first on.
        difference: the first pair that was not, recorded and new; None where nothing differed.
    """

    def __init__(self, path: Path) -> None:
        self._lines = lines_of(path)
        self.same = 0
        self.difference: tuple[str, str] | None = None

    def note(self, time: float, node: str, action: Any) -> None:
        """Takes in one action of the new run."""
        if self.difference is not None:
            return
        recorded, new = next(self._lines, "(the trace ends)"), line_of(time, node, action)
        if recorded == new:
            self.same += 1
        else:
            self.difference = recorded, new

    def end(self) -> None:
        """The new run has ended: nothing may be left of the trace."""
        left = next(self._lines, None)
        self._lines.close()
        if self.difference is None and left is not None:
            self.difference = left, "(the new run ends)"
