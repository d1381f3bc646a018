# SPDX-License-Identifier: Apache-2.0
"""`mdi-exit profile` by names that stand for others, and when the comparison of answers fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mdi_exit_ros.cli.profile import profile
from mdi_exit_ros.errors import BackendError
from mdi_exit_ros.model import profiling
from mdi_exit_ros.profile import load_profile

SHORT = ["--batch", "1", "--turns", "1", "--images", "1"]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("mdi_exit_ros.profile.profile_path", lambda model_id: tmp_path / "kept.json")
    return tmp_path / "p.json"


@pytest.mark.parametrize("names", [["auto"], ["auto", "onnxruntime", "onnxruntime"]])
def test_backends_of_one_name_are_measured_once(names: list[str], path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "agreement", lambda *_: profiling.Agreement(1.0, 1.0, 0.0))
    backends = [part for name in names for part in ("--backend", name)]
    result = CliRunner().invoke(profile, [*backends, *SHORT, "--json", str(path)], catch_exceptions=False)
    assert result.exit_code == 0
    assert [entry.backend for entry in load_profile(path).backends] == ["onnxruntime"]


def test_times_are_kept_where_answers_cannot_be_compared(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def agreement(*_: object) -> profiling.Agreement:
        raise BackendError("backend 'torch-eager' is not installed")

    monkeypatch.setattr(profiling, "agreement", agreement)
    with pytest.raises(BackendError):
        CliRunner().invoke(profile, ["--backend", "onnxruntime", *SHORT, "--json", str(path)], catch_exceptions=False)
    assert load_profile(path) == load_profile(path.parent / "kept.json")
