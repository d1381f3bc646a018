# SPDX-License-Identifier: Apache-2.0
"""How often the shells of the cores, real and simulated, do what the cores do not ask for."""

from __future__ import annotations

SHORTEST_TICK_S = 0.005  # between two ticks while something is overdue
LOOK_S = 0.05  # between a source's looks at what is not urgent
LINGER_S = 0.25  # of a source after its last frame, for the workers' last counters
REPORT_PERIOD_S = 0.05  # between a controller's looks at what workers and sources report
CLUSTER_PERIOD_S = 0.2  # between its pictures of the cluster
INPUT_CATCH_UP_S = 0.05  # lateness that a paced input makes up for; more is forgotten
READ_CHUNK = 16  # frames of a finite input handed over at once: one handshake between threads for all of them
READ_PREFETCH = 8  # chunks kept ready
