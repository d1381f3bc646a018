# SPDX-License-Identifier: Apache-2.0
"""Writes constraints.txt anew: the newest versions that fit together, found in an environment of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

REQUIREMENTS = ("requirements.txt", "requirements-ros.txt", "requirements-bench.txt")
CUDA = ("cuda-", "nvidia-", "triton")


def newest_versions() -> dict[str, str]:
    """Version of every package that the requirements bring in, by normalised name; local parts (+cpu) left out."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        pip = [str(Path(folder, "bin", "python")), "-m", "pip", "--disable-pip-version-check"]
        files = [part for name in REQUIREMENTS for part in ("--requirement", str(ROOT / name))]
        subprocess.run([*pip, "install", "--upgrade", "pip"], check=True)
        subprocess.run([*pip, "install", "--upgrade", *files], check=True)
        listed = json.loads(subprocess.check_output([*pip, "list", "--format=json"]))
    versions = {re.sub(r"[-_.]+", "-", each["name"]).lower(): each["version"].partition("+")[0] for each in listed}
    # Left to torch, whose builds for processors and for CUDA differ in them.
    versions = {name: version for name, version in versions.items() if not name.startswith(CUDA)}
    # A ros-* wheel carries the metadata of the package inside it, which no index has.
    return {name: version for name, version in versions.items() if f"ros-{name}" not in versions}


if __name__ == "__main__":
    pins = "".join(f"{name}=={version}\n" for name, version in sorted(newest_versions().items()))
    (ROOT / "constraints.txt").write_text(pins)
    sys.stdout.write("constraints.txt is written; run `make test` before it is committed\n")
