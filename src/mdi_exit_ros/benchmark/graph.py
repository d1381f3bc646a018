# SPDX-License-Identifier: Apache-2.0
"""One run of the real graph, as a user would start it, for its summary."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mdi_exit_ros.errors import MdiExitError

RUN_TIMEOUT_S = 300.0


def graph_summary(
    *, topology: str, strategy: str, model: str, backend: str, precision: str, frames: int, extra: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Runs `mdi-exit run` in processes of its own and returns its JSON summary.

    Raises:
        MdiExitError: the run failed; the message carries the last lines that it printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "summary.json"
        command = [
            *(sys.executable, "-m", "mdi_exit_ros.cli.main", "run"),
            *("--topology", topology, "--strategy", strategy, "--model", model),
            *("--backend", backend, "--precision", precision, "--rate", "max", "--frames", str(frames)),
            *("--json", str(path), *extra),
        ]
        try:
            finished = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=RUN_TIMEOUT_S,
                check=False,
                env=os.environ,
            )
        except subprocess.TimeoutExpired as error:
            raise MdiExitError(f"{' '.join(command[1:])} did not finish within {RUN_TIMEOUT_S:.0f} s") from error
        if not path.is_file() or finished.returncode != 0:
            tail = " | ".join(finished.stdout.strip().splitlines()[-5:])
            raise MdiExitError(f"{' '.join(command[1:])} ended with {finished.returncode}: {tail}")
        summary: dict[str, Any] = json.loads(path.read_text())
    return summary
