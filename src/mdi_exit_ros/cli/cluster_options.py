# SPDX-License-Identifier: Apache-2.0
"""Options by which a verb finds the cluster that it starts or looks at."""

from __future__ import annotations

import click

from mdi_exit_ros.plan import CLUSTER_NAMESPACE

cluster_namespace_option = click.option(
    "--cluster-namespace", default=CLUSTER_NAMESPACE, show_default=True, help="Namespace of the shared topics."
)
domain_id_option = click.option(
    "--domain-id", type=click.IntRange(0, 232), default=None, help="ROS domain.  [default: ROS_DOMAIN_ID]"
)
