# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.runner.quota import CpuQuotas, parse_quotas

WORKERS = ("worker1", "worker2")
SPIN = "import time\nwhile True: pass"


def test_one_number_is_for_every_worker_and_a_named_one_wins():
    assert parse_quotas(("0.4", "worker2=1.5"), WORKERS) == {"worker1": 0.4, "worker2": 1.5}


@pytest.mark.parametrize("text", ["", "much", "0", "-1", "nan", "0.01", "worker3=0.4", "worker1=", "=0.4"])
def test_what_is_no_quota_is_refused_by_one_line(text):
    with pytest.raises(ConfigurationError, match="--cpu-quota: expected cores .*worker1, worker2; got") as found:
        parse_quotas((text,), WORKERS)
    assert "\n" not in str(found.value)


def test_process_gets_its_share_of_a_processor_and_no_group_is_left():
    with CpuQuotas({"busy": 0.2}) as quotas:
        if quotas.problem:
            pytest.skip(f"control groups cannot be made here: {quotas.problem}")
        process = subprocess.Popen([sys.executable, "-c", SPIN])
        try:
            quotas.place("busy", process.pid)
            quotas.place("unknown", process.pid)
            assert quotas.applied == {"busy": 0.2}
            group = quotas._folder / "busy"
            assert (group / "cgroup.procs").read_text().split() == [str(process.pid)]
            assert cores_of(group) == pytest.approx(0.2)
            before, began = cpu_s(process.pid), time.monotonic()
            time.sleep(1.0)
            share = (cpu_s(process.pid) - before) / (time.monotonic() - began)
        finally:
            process.kill()
            process.wait()
        folder = quotas._folder
    assert 0.0 < share <= 0.3
    assert folder is not None and not folder.exists()


def test_group_that_cannot_be_made_is_told_and_nothing_is_placed(monkeypatch, tmp_path):
    monkeypatch.setattr("mdi_exit_ros.runner.quota._own_group", lambda: tmp_path / "missing")
    with CpuQuotas({"busy": 0.2}) as quotas:
        assert "missing" in quotas.problem
        quotas.place("busy", os.getpid())
        assert quotas.applied == {}


def cores_of(group: Path) -> float:
    """What the kernel has taken in, by either version of control groups."""
    if (group / "cpu.max").is_file():
        quota_us, period_us = (group / "cpu.max").read_text().split()
    else:
        quota_us, period_us = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    return int(quota_us) / int(period_us)


def cpu_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        user, system = file.read().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
