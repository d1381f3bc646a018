# SPDX-License-Identifier: Apache-2.0
"""What is shown of snapshots: drawn anew on a terminal, in lines elsewhere."""

from __future__ import annotations

import io
import re
import time

import pytest
from literals import CAM, W1, W2, source_report, worker_report
from rich.console import Console

from mdi_exit_ros.monitoring import view
from mdi_exit_ros.monitoring.cluster_monitor import ClusterSeen, Snapshot, SourceSeen, WorkerSeen
from mdi_exit_ros.monitoring.view import STALE_S, open_view
from mdi_exit_ros.policy.events import LedgerCounts, WorkerCounters
from mdi_exit_ros.task import Mode

EXPECTED = ("w1", "w2", "w3")
NOTHING = Snapshot({}, {}, None)


def worker(life=W1, *, age_s: float = 0.0) -> WorkerSeen:
    counters = WorkerCounters(served=40, answered=30, moved=5)
    report = worker_report(life, queue=3, output=2, service_s=0.0015)._replace(counters=counters)
    return WorkerSeen(report, rss_bytes=64 * 2**20, cpu_s=1.0, heard_at=time.monotonic() - age_s)


def source(total: int = 0) -> SourceSeen:
    counts = LedgerCounts(offered=60, admitted=58, refused=2, ok=50, failed=1, in_flight=7)
    report = source_report(CAM, counts=counts, total=total, latency_ms=(12.0, 30.0, 40.0))
    return SourceSeen(report, heard_at=time.monotonic())


def cluster(mode: int = Mode.MANUAL, exit_share: tuple[float, ...] = (0.75, 0.25)) -> ClusterSeen:
    return ClusterSeen("ctl", mode, 123.4, 130.0, 0.9, exit_share, (0.8, 0.65), 0.0, time.monotonic())


def screen(snapshot: Snapshot, note: str = "") -> list[str]:
    """What stands on a terminal of 100 columns, by line."""
    out = io.StringIO()
    with open_view(Console(force_terminal=True, file=out, width=100), EXPECTED) as shown:
        shown.show(snapshot, note)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).replace("\r", "").splitlines()


def row(lines: list[str], name: str) -> list[str]:
    """The cells of the table's row of that name."""
    (line,) = (each for each in lines if re.match(rf"│ {name}\b", each))
    return [cell.strip() for cell in line.strip("│").split("│")]


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")  # a dumb one is drawn on once, at the end


# ---- on a terminal ------------------------------------------------------------------------------------------------


def test_workers_that_are_expected_are_shown_before_anything_is_heard() -> None:
    lines = screen(NOTHING, "starting")
    assert "0 frames, 0/s, p50 0 ms, 0 refused, 0 failed, 0 in flight" in lines
    assert [row(lines, name) for name in EXPECTED] == [[name, "not heard yet", *[""] * 6] for name in EXPECTED]
    assert "starting" in lines
    assert not any("thresholds" in line for line in lines)


def test_worker_has_its_numbers_and_one_that_is_silent_its_word() -> None:
    workers = {"w1": worker(), "w2": worker(W2, age_s=STALE_S + 0.1), "other": worker()}
    lines = screen(Snapshot(workers, {}, None))
    numbers = ["3", "2", "1.50", "40", "30", "5", "64"]
    assert row(lines, "w1") == ["w1", *numbers]
    assert row(lines, "w2") == ["w2", "silent", *[""] * 6]
    assert row(lines, "w3") == ["w3", "not heard yet", *[""] * 6]
    assert row(lines, "other") == ["other", *numbers], "nobody expected it"


def test_frames_of_all_sources_are_summed_up() -> None:
    lines = screen(Snapshot({}, {"cam": source(), "cam2": source()}, cluster()))
    assert "106 frames, 123/s, p50 12 ms, 4 refused, 2 failed, 14 in flight" in lines


def test_a_bar_is_above_the_frames_where_their_number_is_known() -> None:
    bar, frames, *_ = screen(Snapshot({}, {"cam": source(total=80)}, cluster()))
    assert re.fullmatch("[━╸╺]{60} *", bar)
    assert frames.rstrip() == "53/80 frames, 123/s, p50 12 ms, 2 refused, 1 failed, 7 in flight"


@pytest.mark.parametrize(("mode", "word"), [*((each, each.name.lower()) for each in Mode), (200, "200")])
def test_mode_is_shown_by_its_name_and_by_its_number_where_it_is_unknown(mode: int, word: str) -> None:
    assert f"exits 75% 25%   thresholds 0.80 0.65   mode {word}" in screen(Snapshot({}, {}, cluster(mode)))


def test_exits_are_a_dash_before_the_first_answer() -> None:
    assert "exits -   thresholds 0.80 0.65   mode manual" in screen(Snapshot({}, {}, cluster(exit_share=())))


# ---- elsewhere ----------------------------------------------------------------------------------------------------


def lines_of(*shown: tuple[Snapshot, str]) -> list[str]:
    """What is written into a file."""
    out = io.StringIO()
    with open_view(Console(file=out, width=100), EXPECTED) as opened:
        for snapshot, note in shown:
            opened.show(snapshot, note)
    return out.getvalue().splitlines()


def test_a_note_is_written_when_it_changes_and_without_a_source_nothing_else_is() -> None:
    notes = ["starting", "starting", "", "stopping", "", "stopping"]
    assert lines_of(*((NOTHING, note) for note in notes)) == ["starting", "stopping", "stopping"]
    assert lines_of((Snapshot({"w1": worker()}, {}, cluster(200)), "")) == []


def test_a_line_has_frames_and_queues_and_the_next_one_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = {"w2": worker(W2, age_s=STALE_S + 0.1), "w1": worker()}
    snapshot = Snapshot(workers, {"cam": source(total=80)}, cluster(200))
    line = "53/80 frames, 123/s, p50 12 ms, 2 refused, 1 failed, 7 in flight; queues w1:3+2 w2:3+2"
    assert lines_of((snapshot, ""), (snapshot, ""), (snapshot, "")) == [line]
    monkeypatch.setattr(view, "LINE_INTERVAL_S", 0.0)
    assert lines_of((snapshot, ""), (snapshot, "")) == [line, line]
