# SPDX-License-Identifier: Apache-2.0
"""Programs of the folder `benchmark/`: what they refuse before they measure."""

from __future__ import annotations

import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.graph


def said_by(program: Path, *options: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, str(program), *options], check=False, capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.mark.parametrize("content", ["nothing", "no zip", "no images", "broken"])
def test_a_camera_without_images_is_refused_in_one_line(content: str, repository: Path, tmp_path: Path) -> None:
    archive = tmp_path / "images.zip"
    if content == "no zip":
        archive.write_text("images")
    elif content != "nothing":
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("a.jpg" if content == "broken" else "a.txt", b"no image")
    options = ["--archive", str(archive), "--json", str(tmp_path / "out.json")]
    status, text = said_by(repository / "benchmark" / "camera_topic.py", *options)
    assert status == 2
    assert "error: --archive: expected " in text.splitlines()[-1]
    assert "Traceback" not in text


def test_the_folder_of_results_is_made_before_the_camera_plays(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.json"
    code = (
        "import runpy, sys, rclpy; rclpy.init = lambda: sys.exit('about to play'); "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    program = str(repository / "benchmark" / "camera_topic.py")
    command = [sys.executable, "-c", code, program, "--json", str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "about to play" in done.stderr
    assert path.parent.is_dir()


def test_an_unknown_transport_is_one_line(repository: Path) -> None:
    status, text = said_by(repository / "benchmark" / "one_way.py", "--transport", "pigeon")
    assert status == 1
    assert text.startswith("error: ") and "pigeon" in text and len(text.splitlines()) == 1


def test_a_receiver_waits_as_long_as_its_messages_take(repository: Path) -> None:
    lifetime_of = runpy.run_path(str(repository / "benchmark" / "one_way.py"))["lifetime_of"]
    assert lifetime_of(510, 6.0) > 30.0
    assert lifetime_of(3 * 1020, 100.0) > 306.0
