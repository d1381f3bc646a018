# SPDX-License-Identifier: Apache-2.0
"""ROS parameter files, read before any node is."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdi_exit_ros.cli.parameter_files import parameters_in_files
from mdi_exit_ros.errors import ConfigurationError

EVERYBODY = "/**:\n  ros__parameters: {backend: torch, batch_max: 8}\n"
WORKER = "/**/worker1:\n  ros__parameters: {backend: openvino}\n"
NESTED = "mdi_exit:\n  worker1:\n    ros__parameters: {precision: bf16}\n"
ONE_PART = "/*/worker1:\n  ros__parameters: {threads: 2}\n"


def said(folder: Path, *texts: str, name: str = "/mdi_exit/worker1") -> dict[str, object]:
    files = [folder / f"{number}.yaml" for number, _ in enumerate(texts)]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    return parameters_in_files(name, files)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], {}),
        ([""], {}),
        ([EVERYBODY], {"backend": "torch", "batch_max": 8}),
        ([EVERYBODY + WORKER], {"backend": "openvino", "batch_max": 8}),
        ([WORKER + EVERYBODY], {"backend": "torch", "batch_max": 8}),
        ([EVERYBODY + WORKER, EVERYBODY], {"backend": "openvino", "batch_max": 8}),  # the section of a worker is lower
        ([NESTED + ONE_PART], {"precision": "bf16", "threads": 2}),
        (["/worker1:\n  ros__parameters: {backend: torch}\n"], {}),
        (["- a\n"], {}),
        (["/**: 3\n"], {}),
    ],
)
def test_the_lowest_section_that_fits_wins(texts: list[str], expected: dict[str, object], tmp_path: Path) -> None:
    assert said(tmp_path, *texts) == expected


@pytest.mark.parametrize(("name", "expected"), [("/worker1", "openvino"), ("/a/b/worker1", "openvino"), ("/x", None)])
def test_two_stars_stand_for_any_namespace(name: str, expected: str | None, tmp_path: Path) -> None:
    assert said(tmp_path, WORKER, name=name).get("backend") == expected


def test_what_is_no_yaml_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--params-file: expected YAML as in config/nodes.yaml in ") as caught:
        said(tmp_path, "a: [b\n")
    assert "\n" not in str(caught.value)
