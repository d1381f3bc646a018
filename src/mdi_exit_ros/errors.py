# SPDX-License-Identifier: Apache-2.0
"""Errors that a user can cause; each carries one message: what was expected, what came, what to do."""

from __future__ import annotations


class MdiExitError(Exception):
    """Anything a user can put right; shown as one line, without a traceback."""


class ConfigurationError(MdiExitError):
    """A setting, plan or topology that cannot be used."""


class ModelError(MdiExitError):
    """A model that is missing, broken or does not fit its input."""


class DataError(MdiExitError):
    """Images or labels that cannot be read."""


class BackendError(MdiExitError):
    """A compute backend that is missing or unknown."""


class MessageError(MdiExitError):
    """A message that is none, or whose fields contradict each other or are out of range."""


class BrokenError(Exception):
    """A process cannot do its work, and a new one may: shown as one line, with an exit status that starts it again."""
