# SPDX-License-Identifier: Apache-2.0
"""Files that verbs write with --json."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mdi_exit_ros.cli.output import json_option, write_json


@click.command()
@json_option("Write here.")
def verb(json_path: Path | None) -> None:
    if json_path is not None:
        write_json({"done": True}, json_path)


def test_the_folder_is_made_and_the_document_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.json"
    assert CliRunner().invoke(verb, ["--json", str(path)]).exit_code == 0
    assert json.loads(path.read_text()) == {"done": True}


def test_numbers_that_json_does_not_have_are_null(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    write_json({"a": [math.inf, 1.5, (math.nan, -math.inf)], "b": {"c": math.nan}}, path)
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
        "a": [None, 1.5, [None, None]],
        "b": {"c": None},
    }


@pytest.mark.parametrize("target", ["/proc/nowhere/out.json", "."])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(target: str) -> None:
    result = CliRunner().invoke(verb, ["--json", target])
    assert result.exit_code == 2
    assert "Invalid value for '--json'" in result.output
