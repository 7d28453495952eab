"""The window of past frames: pushing, padding, sliding."""

from __future__ import annotations

import torch

from wm_toolkit.models.window import Window, empty, push, sliding, visible


def frame(value: float, rows: int = 1) -> torch.Tensor:
    return torch.full((rows, 1, 1), value)


def action(value: float, rows: int = 1) -> torch.Tensor:
    return torch.full((rows, 1), value)


def filled(count: int, history: int = 3) -> Window:
    window = empty(1, history, (1, 1), 1, torch.zeros(1))
    for i in range(count):
        window = push(window, action(10.0 + i), frame(1.0 + i))
    return window


def test_frames_enter_on_the_right_and_leave_on_the_left():
    assert filled(2).tokens.flatten().tolist() == [0, 1, 2]
    assert filled(4).tokens.flatten().tolist() == [2, 3, 4]
    assert filled(2).count.tolist() == [2]
    assert filled(4).count.tolist() == [3]


def test_an_action_stands_between_the_frames_it_connects():
    # Frame i + 1 was reached by action 10 + i, which follows frame i.
    window = filled(4)
    assert window.tokens.flatten().tolist() == [2, 3, 4]
    assert window.actions.flatten().tolist() == [12, 13]


def test_a_history_of_one_frame_keeps_no_actions():
    assert filled(3, history=1).actions.shape == (1, 0, 1)
    assert filled(3, history=1).newest.item() == 3


def test_padding_is_invisible_and_positions_begin_at_the_oldest_real_frame():
    position, mask = visible(torch.tensor([2, 3]), 3)
    assert position.tolist() == [[0, 0, 1], [0, 1, 2]]
    assert mask[0, 0].int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert mask[1, 0].int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_sliding_views_equal_pushing_frame_by_frame():
    for count in (1, 2, 3, 4):
        start = filled(count)
        frames = torch.arange(100.0, 105).view(1, 5, 1, 1)
        actions = torch.arange(50.0, 55).view(1, 5, 1)
        along = sliding(start, frames, actions)
        window = start
        for step in range(5):
            window = push(window, actions[:, step], frames[:, step])
            for a, b in zip(along[:, step].leaves(), window.leaves(), strict=True):
                assert torch.equal(a, b)
