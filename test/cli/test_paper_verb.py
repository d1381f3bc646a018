# SPDX-License-Identifier: Apache-2.0
"""Files of `mdi-exit paper`: one for each network, whatever it is called."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mdi_exit_ros.cli import paper
from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.simulation import experiment_plots
from mdi_exit_ros.simulation.experiments import QUICK


def test_networks_of_one_name_are_refused_before_the_work(repository: Path, tmp_path: Path) -> None:
    copy = tmp_path / "mobilenetv2"
    shutil.copytree(repository / "models" / "mobilenetv2", copy)
    with pytest.raises(ConfigurationError, match="--model: .* of different names, two are called mobilenetv2"):
        paper._figures(["rate"], ["mobilenetv2", str(copy)], QUICK, 1)


def test_a_name_with_a_dot_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = SimpleNamespace(savefig=lambda path, dpi: path.write_bytes(b""))
    monkeypatch.setitem(experiment_plots.DRAW, "rate", lambda rows, measured: figure)
    monkeypatch.setattr(paper, "_model", lambda scenario: None)
    monkeypatch.setattr(paper, "_assumptions", lambda *_: [])
    point: Any = SimpleNamespace(experiment="rate", scenario=SimpleNamespace(model_dump=lambda exclude: {}))
    written = paper._write(tmp_path, "rate_mine.v1", [point], [{"model": "mine.v1"}], [], quick=True, seed=1)
    assert [path.name for path in written] == ["rate_mine.v1.png", "rate_mine.v1.json", "rate_mine.v1.csv"]
    assert all(path.is_file() for path in written)
