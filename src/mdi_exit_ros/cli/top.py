# SPDX-License-Identifier: Apache-2.0
"""`mdi-exit top`: what a running cluster does, whoever started it."""

from __future__ import annotations

import os
import time

import click
from rich.console import Console

from mdi_exit_ros.cli.cluster_options import cluster_namespace_option, domain_id_option
from mdi_exit_ros.cli.output import FiniteRange
from mdi_exit_ros.transport import TRANSPORTS, transport_variables

POLL_S = 0.25


@click.command(short_help="Show what a running cluster does.")
@cluster_namespace_option
@domain_id_option
@click.option(
    "--transport",
    default="default",
    show_default=True,
    metavar="|".join((*TRANSPORTS, "FILE.xml")),
    help="How messages travel: as the cluster's nodes were told.",
)
@click.option("--duration", type=FiniteRange(min=0.0), default=0.0, help="End after so many seconds; 0: with Ctrl-C.")
def top(cluster_namespace: str, domain_id: int | None, transport: str, duration: float) -> int:
    """Shows a running cluster: its frames, its exits, and every worker's queues and times.

    On a terminal the view is drawn anew four times a second, elsewhere a line comes every two seconds. It only listens.
    Exit status 0 means that the cluster was heard.
    """
    os.environ.update(transport_variables(transport, os.environ))
    if domain_id is not None:
        os.environ["ROS_DOMAIN_ID"] = str(domain_id)

    from mdi_exit_ros.monitoring.cluster_monitor import ClusterMonitor
    from mdi_exit_ros.monitoring.view import open_view

    ends_at = time.monotonic() + duration if duration else float("inf")
    domain = os.environ.get("ROS_DOMAIN_ID", "0")
    nothing = f"nothing heard on {cluster_namespace} yet, in ROS domain {domain}: is it running, with this namespace?"
    heard = False
    with ClusterMonitor(cluster_namespace) as monitor, open_view(Console()) as view:
        try:
            while time.monotonic() < ends_at:
                snapshot = monitor.snapshot()
                heard |= bool(snapshot.workers or snapshot.sources or snapshot.cluster)
                view.show(snapshot, "" if heard else nothing)
                time.sleep(POLL_S)
        except KeyboardInterrupt:
            pass
    return 0 if heard else 1
