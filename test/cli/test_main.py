# SPDX-License-Identifier: Apache-2.0
"""What the command `mdi-exit` makes of mistakes, interruptions and verbs."""

from __future__ import annotations

import sys
from types import ModuleType

import click
import pytest

from mdi_exit_ros.cli import main
from mdi_exit_ros.errors import DataError


@pytest.fixture
def verb_that_raises(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Replaces `mdi-exit train` by a verb that raises what is put into this list."""
    raised: list[BaseException] = []

    @click.command()
    def train() -> None:
        raise raised[0]

    module = ModuleType("train")
    module.__dict__["train"] = train
    monkeypatch.setitem(sys.modules, "mdi_exit_ros.cli.train", module)
    return raised


def test_users_mistake_is_one_line_and_status_2(
    verb_that_raises: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    verb_that_raises.append(DataError("expected images, found none in pictures/: name another folder"))
    assert main.run(["train"]) == 2
    assert capsys.readouterr() == ("", "error: expected images, found none in pictures/: name another folder\n")


def test_interruption_is_quiet(verb_that_raises: list[BaseException], capsys: pytest.CaptureFixture[str]) -> None:
    verb_that_raises.append(KeyboardInterrupt())
    assert main.run(["train"]) == 130
    captured = capsys.readouterr()
    assert captured.out + captured.err.strip() == ""


def test_our_own_mistake_keeps_its_traceback(verb_that_raises: list[BaseException]) -> None:
    verb_that_raises.append(RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        main.run(["train"])


def test_unknown_verb_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["fly"]) == 2
    assert "No such command 'fly'" in capsys.readouterr().err


def test_status_of_a_verb_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    @click.pass_context
    def train(context: click.Context) -> None:
        context.exit(1)

    module = ModuleType("train")
    module.__dict__["train"] = train
    monkeypatch.setitem(sys.modules, "mdi_exit_ros.cli.train", module)
    assert main.run(["train"]) == 1


@pytest.mark.parametrize("verb", main.VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([verb, "--help"]) == 0
    assert f"Usage: mdi-exit {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (["--param", "worker1:btach_max=8"], "no node has a parameter 'btach_max' (did you mean 'batch_max'?)"),
        (["--image-topic", "/camera/image_raw"], "--image-topic /camera/image_raw: nothing reads it; expected --input"),
    ],
)
def test_run_refuses_what_would_have_no_effect(
    mistake: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["run", "--topology", "one_node", *mistake]) == 2
    assert said in capsys.readouterr().err
