# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # rclpy loads message descriptions with a parser that still imports sre_parse; warnings are errors here
    warnings.simplefilter("ignore", DeprecationWarning)
    import lark  # noqa: F401
