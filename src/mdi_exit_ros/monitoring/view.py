# SPDX-License-Identifier: Apache-2.0
"""What a cluster looks like while it runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mdi_exit_ros.monitoring.cluster_monitor import Snapshot
from mdi_exit_ros.task import Mode

FRAMES_PER_S = 4  # of the view
LINE_INTERVAL_S = 2.0
STALE_S = 1.5  # silence of a worker, from which it is shown as silent


class View(Protocol):
    """Shows snapshots."""

    def show(self, snapshot: Snapshot, note: str = "") -> None:
        """Shows what was heard, and a `note` on it."""
        ...


@contextlib.contextmanager
def open_view(console: Console, workers: Sequence[str] = ()) -> Iterator[View]:
    """A view that is drawn anew on a terminal, and plain lines elsewhere.

    Args:
        console: where it is shown.
        workers: names of those that are expected, shown before they are heard.
    """
    if not console.is_terminal:
        yield _Lines(console)
        return
    with Live(console=console, refresh_per_second=FRAMES_PER_S, transient=True) as live:
        yield _Screen(live, workers)


class _Progress:
    """Sums over sources."""

    def __init__(self, snapshot: Snapshot) -> None:
        counts = [seen.report.counts for seen in snapshot.sources.values()]
        self.closed = sum(count.ok + count.refused + count.failed for count in counts)
        self.ok = sum(count.ok for count in counts)
        self.failed = sum(count.failed for count in counts)
        self.refused = sum(count.refused for count in counts)
        self.in_flight = sum(count.in_flight for count in counts)
        self.total = sum(seen.report.total for seen in snapshot.sources.values())
        self.fps = snapshot.cluster.fps if snapshot.cluster else 0.0
        latencies = [seen.report.latency_ms[0] for seen in snapshot.sources.values()]
        self.latency_ms = max(latencies, default=0.0)

    @property
    def text(self) -> str:
        of = f"/{self.total}" if self.total else ""
        ends = f"{self.refused} refused, {self.failed} failed, {self.in_flight} in flight"
        return f"{self.closed}{of} frames, {self.fps:.0f}/s, p50 {self.latency_ms:.0f} ms, {ends}"


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._due_at = 0.0
        self._note = ""

    def show(self, snapshot: Snapshot, note: str = "") -> None:
        now = time.monotonic()
        if note != self._note:
            self._note = note
            if note:
                self._console.print(note, highlight=False)
        elif snapshot.sources and now >= self._due_at:
            self._due_at = now + LINE_INTERVAL_S
            queues = " ".join(
                f"{name}:{seen.report.input_queue}+{seen.report.output_queue}"
                for name, seen in sorted(snapshot.workers.items())
            )
            self._console.print(f"{_Progress(snapshot).text}; queues {queues}", highlight=False, soft_wrap=True)


class _Screen:
    def __init__(self, live: Live, workers: Sequence[str]) -> None:
        self._live = live
        self._workers = workers

    def show(self, snapshot: Snapshot, note: str = "") -> None:
        progress = _Progress(snapshot)
        parts: list[RenderableType] = []
        if progress.total:
            bar = ProgressBar(total=progress.total, completed=progress.closed, width=60)
            parts.append(Padding(bar, 0))  # a bar alone ends without a new line
        parts.append(Text(progress.text))
        if snapshot.cluster is not None:
            cluster = snapshot.cluster
            shares = " ".join(f"{share:.0%}" for share in cluster.exit_share)
            thresholds = " ".join(f"{threshold:.2f}" for threshold in cluster.exit_threshold)
            parts.append(Text(f"exits {shares or '-'}   thresholds {thresholds}   mode {_name_of(cluster.mode)}"))
        parts.append(self._worker_table(snapshot))
        if note:
            parts.append(Text(note, style="dim"))
        self._live.update(Group(*parts))

    def _worker_table(self, snapshot: Snapshot) -> Table:
        table = Table()
        for heading in ("worker", "to run", "to move", "ms/task", "tasks run", "answered", "moved", "MiB"):
            table.add_column(heading, justify="left" if heading == "worker" else "right")
        now = time.monotonic()
        others = sorted(snapshot.workers.keys() - set(self._workers))
        for name in (*self._workers, *others):
            seen = snapshot.workers.get(name)
            if seen is None or now - seen.heard_at > STALE_S:
                table.add_row(name, "silent" if seen else "not heard yet", style="red" if seen else "dim")
                continue
            report, counters = seen.report, seen.report.counters
            table.add_row(
                name,
                str(report.input_queue),
                str(report.output_queue),
                f"{report.service_time_s * 1000.0:.2f}",
                str(counters.served),
                str(counters.answered),
                str(counters.moved),
                f"{seen.rss_bytes / 2**20:.0f}",
            )
        return table


def _name_of(mode: int) -> str:
    """The controller's mode in words; a number where another version knows more of them."""
    return Mode(mode).name.lower() if mode in list(Mode) else str(mode)
