# SPDX-License-Identifier: Apache-2.0
"""Mistakes in the options of `mdi-exit run`: told in one line before anything is started."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mdi_exit_ros.cli import main


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--input", "topic", "--rate", "30"], "--rate: a live camera has its own; expected max, or a finite --input"),
        (["--input", "device:0", "--rate", "30"], "--rate: a live camera has its own"),
        (["--computer", "nano9"], "computer 'nano9' .*expected all or one of robot, nano2, nano3"),
        (
            ["--strategy", "local", "--computer", "nano2"],
            "computer 'nano2' has no node in .*three_mesh.* with strategy local",
        ),
        (
            ["--computer", "nano2", "--json", "out.json"],
            "--json: the summary is written where the source runs: robot, not nano2",
        ),
        (["--input", "no_such.zip"], r"--input: no /.*/no_such\.zip: expected a folder, a \.zip archive, a video file"),
        (
            ["--threshold", "0.5", "--threshold", "0.6"],
            r"--threshold: expected one for all, or one for each of exits 1\.\.4, got 2",
        ),
        *(
            (["--param", text], f"--param: expected NODE:KEY=VALUE with a node of .*worker1.*; got '{text}'")
            for text in ("worker1", "batch_max=8", "worker1:batch_max", "worker1:=8", "worker9:batch_max=8")
        ),
        (["--param", "worker1:batch_max=[8"], "--param: expected a value as in YAML, got .*8' in 'worker1:batch_max="),
    ],
)
def test_mistake_is_one_line_that_says_what_was_expected(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.run(["run", "--topology", "three_mesh", *options]) == 2
    assert re.fullmatch(f"error: {said}.*\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        *(
            (["--rate", text], "expected max, or frames per second above 0 and up to 100000, got")
            for text in ("0", "-1", "fast", "nan", "inf")
        ),
        (["--threshold", "1.5"], "1.5 is not in the range"),
        (["--threshold", "high"], "'high' is not a valid float"),
        (["--target-accuracy", "88"], "88.0 is not in the range"),
        (["--frames", "0"], "0 is not in the range"),
    ],
)
def test_value_that_an_option_does_not_take_is_told_with_the_option(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["run", *options]) == 2
    error = capsys.readouterr().err
    assert f"Invalid value for '{options[0]}'" in error
    assert said in error
