# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from mdi_exit_ros.nodes.tensors import Row, TensorStore, gather
from mdi_exit_ros.task import FrameId, PeerId, Task

BATCH = np.arange(12).reshape(4, 3)
OTHER = BATCH + 100


def task(sequence: int, attempt: int = 1) -> Task:
    return Task(FrameId(PeerId("camera", 1), sequence), attempt, 1, 0.0, 1.0)


def test_batch_that_runs_as_it_came_is_not_copied():
    found = gather([Row(BATCH, 1), Row(BATCH, 2), Row(BATCH, 3)])
    assert np.shares_memory(found, BATCH)
    np.testing.assert_array_equal(found, BATCH[1:])


def test_rows_of_several_batches_keep_their_order():
    found = gather([Row(BATCH, 2), Row(BATCH, 1), Row(OTHER, 0), Row(OTHER, 1), Row(BATCH, 0)])
    np.testing.assert_array_equal(found, [BATCH[2], BATCH[1], OTHER[0], OTHER[1], BATCH[0]])


def test_attempts_are_kept_apart_and_a_held_one_is_not_overwritten():
    store = TensorStore()
    store.keep([task(1), task(2)], BATCH)
    store.keep([task(1), task(1, attempt=2)], OTHER)
    np.testing.assert_array_equal(gather(store.rows([task(1), task(1, attempt=2)])), [BATCH[0], OTHER[1]])
    store.forget([task(1)])
    store.forget([task(1)])
    assert len(store) == 2
    store.replace([task(2)], OTHER)
    np.testing.assert_array_equal(gather(store.rows([task(2)])), OTHER[:1])
    with pytest.raises(KeyError):
        store.rows([task(1)])
