# SPDX-License-Identifier: Apache-2.0
"""Numbers that are none are refused on the command line, before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdi_exit_ros.cli.main import run


@pytest.mark.parametrize(
    "arguments",
    [
        ["top", "--duration", "nan"],
        ["run", "--duration", "nan"],
        ["run", "--timeout", "inf"],
        ["run", "--threshold", "nan"],
        ["run", "--target-accuracy", "nan"],
        ["train", "--data", "none", "--out", "none", "--learning-rate", "nan"],
    ],
)
def test_what_is_no_number_is_refused(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    assert f"'{arguments[-2]}'" in capsys.readouterr().err
