# SPDX-License-Identifier: Apache-2.0
"""Fails where colcon would pass over one of the two packages, which a build that returns 0 does not show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PACKAGES = {"mdi_exit_msgs", "mdi_exit_ros"}


def listed_packages(directory: Path, *arguments: str) -> set[str]:
    """Names that `colcon list` finds when it is started in a directory."""
    command = [sys.executable, "-m", "colcon", "--log-base", "/dev/null", "list", "--names-only", *arguments]
    return set(subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True).stdout.split())


if __name__ == "__main__":
    found = listed_packages(Path(__file__).resolve().parent.parent)
    if found != PACKAGES:
        sys.exit(
            f"error: colcon was expected to list {', '.join(sorted(PACKAGES))} and lists "
            f"{', '.join(sorted(found)) or 'nothing'}; see base-paths in colcon_defaults.yaml"
        )
    print("colcon lists", *sorted(found))
