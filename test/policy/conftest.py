# SPDX-License-Identifier: Apache-2.0
"""Makes the shared harness importable: with importlib mode pytest leaves this folder off the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
