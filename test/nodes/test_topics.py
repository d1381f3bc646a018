# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from rclpy.qos import DurabilityPolicy, HistoryPolicy, ReliabilityPolicy

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.nodes import topics
from mdi_exit_ros.parameter import parameters_of
from mdi_exit_ros.policy.source_setup import SourceSettings
from mdi_exit_ros.policy.worker_setup import WorkerSettings


def limits(config):
    return {name: info.high for name, _, info in parameters_of(config)}


def test_no_credit_can_overwrite_a_message():
    cluster = topics.ClusterTopics("/mdi_exit")
    assert cluster.tasks("worker1").qos.depth > limits(WorkerSettings)["queue_capacity"]
    assert cluster.results("camera").qos.depth >= 8 * SourceSettings().in_flight_max
    for topic in (cluster.tasks("worker1"), cluster.results("camera")):
        assert topic.qos.reliability is ReliabilityPolicy.RELIABLE
        assert topic.qos.durability is DurabilityPolicy.VOLATILE
        assert topic.qos.history is HistoryPolicy.KEEP_LAST


def test_late_joiners_get_the_policy_of_every_controller():
    cluster = topics.ClusterTopics("/mdi_exit")
    assert cluster.policy_out.qos.depth == 1
    assert cluster.policy_in.qos.depth >= 32
    assert cluster.policy_in.qos.durability is cluster.policy_out.qos.durability is DurabilityPolicy.TRANSIENT_LOCAL
    assert cluster.workers.qos.depth >= 4 * topics.PEERS_MAX


def test_newest_image_wins_and_names_are_relative():
    assert topics.IMAGE.qos.reliability is ReliabilityPolicy.BEST_EFFORT
    assert topics.IMAGE.qos.depth == 1
    assert not topics.IMAGE.name.startswith("/")
    assert topics.compressed("/robot1/camera").name == "/robot1/camera/compressed"


@pytest.mark.parametrize("namespace", ["/mdi exit", "//a", "/a//b", "/1a", "a-b", "/é", "/" + 100 * "a"])
def test_namespace_that_ros_would_refuse_is_one_clear_message(namespace):
    with pytest.raises(ConfigurationError, match="cluster_namespace"):
        topics.ClusterTopics(namespace)


@pytest.mark.parametrize("name", ["", "a/b", "1a", "a b", "é", 101 * "a"])
def test_name_that_makes_no_topic_is_one_clear_message(name):
    with pytest.raises(ConfigurationError, match="expected a name"):
        topics.ClusterTopics("/mdi_exit").tasks(name)
