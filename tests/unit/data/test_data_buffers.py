"""Memory that is used again: only when nobody holds it, and with the same numbers."""

from __future__ import annotations

import numpy as np
import torch

from wm_toolkit.data.buffers import KEPT, LEAST, Buffers

FRAMES = np.arange(40 * LEAST // 4, dtype=np.float32).reshape(40, -1)


def test_what_is_gathered_is_what_indexing_gives():
    rows = np.array([[3, 4, 5], [39, 0, 7]])
    for array in (FRAMES, FRAMES[:, :2], FRAMES > 9):
        assert np.array_equal(Buffers().gather(array, rows), array[rows])


def test_memory_is_used_again_when_the_last_tensor_is_gone():
    buffers = Buffers()
    tensor = torch.from_numpy(buffers.gather(FRAMES, np.array([[1, 2]])))
    place, part = tensor.data_ptr(), tensor[0, 1, 5:9]
    del tensor
    other = torch.from_numpy(buffers.gather(FRAMES, np.array([[8, 9]])))
    assert other.data_ptr() != place  # a view of the first is still held
    assert part.tolist() == FRAMES[2, 5:9].tolist()
    del part
    third = torch.from_numpy(buffers.gather(FRAMES, np.array([[4, 5]])))
    assert third.data_ptr() == place
    assert torch.equal(third, torch.from_numpy(FRAMES[[[4, 5]]]))
    assert torch.equal(other, torch.from_numpy(FRAMES[[[8, 9]]]))


def test_arrays_made_from_a_tensor_keep_its_memory_too():
    buffers = Buffers()
    array = torch.from_numpy(buffers.gather(FRAMES, np.array([[1]]))).numpy()[0, 0, :3]
    buffers.gather(FRAMES, np.array([[7]]))
    assert array.tolist() == FRAMES[1, :3].tolist()


def test_another_shape_gets_memory_of_its_own():
    buffers = Buffers()
    place = buffers.gather(FRAMES, np.array([[1, 2]])).ctypes.data
    wide = buffers.gather(FRAMES, np.array([[1, 2, 3]]))
    assert wide.shape == (1, 3, FRAMES.shape[1])
    assert buffers.gather(FRAMES, np.array([[5, 6]])).ctypes.data == place


def test_no_more_than_a_few_arrays_wait_to_be_used_again():
    buffers = Buffers()
    held = [buffers.gather(FRAMES, np.array([[n]])) for n in range(3 * KEPT)]
    assert len({array.ctypes.data for array in held}) == 3 * KEPT
    del held
    assert [len(free) for free in buffers._free.values()] == [KEPT]
