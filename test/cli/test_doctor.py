# SPDX-License-Identifier: Apache-2.0
"""The doctor finds what is wrong, and says what to do about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mdi_exit_ros.cli import doctor


@pytest.mark.graph
def test_healthy_machine_passes_with_a_real_exchange(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mdi_exit_ros.cli.main", "doctor", "--json", str(tmp_path / "out" / "doctor.json")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "out" / "doctor.json").read_text())
    assert result["ok"]
    status = {check["name"]: check["status"] for check in result["checks"]}
    assert status["message exchange"] == status["mdi_exit_msgs"] == status["model"] == "ok"


@pytest.mark.graph
def test_processes_that_cannot_find_each_other_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    from mdi_exit_ros.errors import ConfigurationError
    from mdi_exit_ros.monitoring.exchange import exchange

    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF")
    with pytest.raises(ConfigurationError, match="no answer from a second process in 2 s"):
        exchange(timeout_s=2.0)


@pytest.mark.parametrize(
    ("domain", "reach", "advice"),
    [
        ("102", "SUBNET", "0 to 101 or 215 to 232"),
        ("214", "SUBNET", "0 to 101"),
        ("233", "SUBNET", "0 to 101"),
        ("x", "SUBNET", "0 to 101"),
        ("1", "EVERYWHERE", "one of SUBNET"),
        ("1", "OFF", "unset"),
    ],
)
def test_settings_that_keep_nodes_apart_are_named(
    domain: str, reach: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", reach)
    check = doctor._discovery()
    assert check.status == "FAILED"
    assert advice in check.advice


@pytest.mark.parametrize("domain", ["", "0", "101", "215", "232"])
def test_domains_beside_the_ports_that_the_system_hands_out_are_fine(
    domain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    assert doctor._discovery().ok


def test_without_ros_every_failing_row_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rclpy", "rclpy.utilities", "mdi_exit_msgs", "mdi_exit_msgs.msg", "cv_bridge"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in [name for name in sys.modules if name.startswith("mdi_exit_ros.monitoring")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    checks = [check() for check in doctor.CHECKS]
    failed = {check.name for check in checks if check.status == "FAILED"}
    assert failed == {"ROS 2", "rclpy", "mdi_exit_msgs", "message exchange"}
    assert all(check.advice for check in checks if not check.ok)


def test_messages_that_were_not_built_are_noticed(tmp_path: Path) -> None:
    # Where only the sources are on the path, they import as an empty namespace package.
    (tmp_path / "mdi_exit_msgs" / "msg").mkdir(parents=True)
    code = "from mdi_exit_ros.cli.doctor import _messages; check = _messages(); print(check.ok, check.advice)"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    hide = "import sys; sys.path = [p for p in sys.path if 'site-packages' not in p]; "
    source = Path(doctor.__file__).resolve().parents[2]
    keep = f"import click; sys.path.append({str(source)!r}); "
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {keep}{hide}{code}"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("False run `make setup`")
