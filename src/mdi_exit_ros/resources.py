# SPDX-License-Identifier: Apache-2.0
"""Where the files that come with the project are."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mdi_exit_ros.errors import ConfigurationError

PACKAGE = "mdi_exit_ros"
SAMPLE = "sample"  # name of the shipped images, where an input is asked for


def sample_archive() -> Path:
    """The shipped images, labelled by their folders."""
    return share_directory() / "data" / "cifar10_sample.zip"


def share_directory() -> Path:
    """Answers which directory holds `config/`, `data/`, `launch/` and `models/`.

    Python that runs from a checkout uses that checkout; an installed package uses the share directory beside it in the
    ament index (the prefixes of `AMENT_PREFIX_PATH`, the first one that has the package), or the one of its own Python.

    Raises:
        ConfigurationError: neither is there.
    """
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "package.xml").is_file():
        return checkout
    prefixes = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    marker = Path("share", "ament_index", "resource_index", "packages", PACKAGE)
    for prefix in (*prefixes, Path(sys.prefix)):
        if (prefix / marker).is_file():
            return prefix / "share" / PACKAGE
    raise ConfigurationError(
        f"the files of {PACKAGE} (config, models, data) were expected in a checkout or below a prefix of "
        f"AMENT_PREFIX_PATH, and are in none of: {', '.join(map(str, (checkout, *prefixes, sys.prefix)))}; "
        "source install/setup.bash of the workspace that built the package"
    )
