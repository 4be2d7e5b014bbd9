import numpy as np
import pytest

from charlm.training.batches import StreamBatches

IDS = np.arange(10, 47, dtype=np.uint8)


def test_each_stream_reads_the_ring_without_gaps() -> None:
    batches = StreamBatches(IDS, 3, 5, start_id=1, seed=4)
    ring = [1, *IDS.tolist()]
    read = np.concatenate([batches.inputs_and_targets(step)[0] for step in range(40)], axis=1)
    for stream in read:
        first = ring.index(stream[0])
        assert stream.tolist() == [ring[(first + place) % len(ring)] for place in range(200)]
    inputs, targets = batches.inputs_and_targets(7)
    np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])
    assert batches.steps_per_epoch == pytest.approx(38 / 15)


@pytest.mark.parametrize("workers", [2, 3])
def test_shards_have_the_streams_of_the_whole(workers: int) -> None:
    whole = StreamBatches(IDS, 2 * workers, 4, start_id=1, reset_prob=0.4, seed=3)
    parts = [whole.shard(rank, workers) for rank in range(workers)]
    for step in range(5):
        for index in range(2):
            together = np.concatenate([part.inputs_and_targets(step)[index] for part in parts])
            np.testing.assert_array_equal(together, whole.inputs_and_targets(step)[index])
        np.testing.assert_array_equal(np.concatenate([part.resets(step) for part in parts]), whole.resets(step))
    assert parts[0].tokens_per_step == whole.tokens_per_step


def test_streams_are_reset_at_the_first_update_and_later_at_random() -> None:
    batches = StreamBatches(IDS, 8, 4, start_id=1, reset_prob=0.25)
    assert batches.resets(0).all()
    assert np.mean([batches.resets(step) for step in range(1, 500)]) == pytest.approx(0.25, abs=0.03)
    np.testing.assert_array_equal(batches.resets(9), batches.resets(9))
