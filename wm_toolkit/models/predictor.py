"""Predicts the next frame's embedding from a window of frames and actions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wm_toolkit.models.window import visible
from wm_toolkit.nn.transformer import AdaLNBlock, KeysValues

Memory = list[KeysValues]
"""Keys and values of every block."""


class Predictor(nn.Module):
    """Causal transformer over frame embeddings, modulated by the action of the same frame.

    Args:
        embedding: E, width of a frame embedding.
        width: D, width of the transformer; E unless given, else E is mapped to D first.
        history: frames it sees at once.
        layers: number of AdaLN blocks.
        heads: attention heads, of width `head_width` each.
        head_width: width of a head.
        hidden: width of the MLPs.
        dropout: inside the blocks.
        position_std: deviation of the initial position embeddings; small ones let a short training
            begin with the content of the frames.
    """

    def __init__(
        self,
        embedding: int,
        *,
        width: int | None = None,
        history: int = 3,
        layers: int = 6,
        heads: int = 16,
        head_width: int = 64,
        hidden: int = 2048,
        dropout: float = 0.1,
        position_std: float = 1.0,
    ) -> None:
        super().__init__()
        self.embedding, self.history = embedding, history
        self.width = width or embedding
        self.input: nn.Module = nn.Identity()
        if self.width != embedding:
            self.input = nn.Linear(embedding, self.width)
        self.positions = nn.Parameter(position_std * torch.randn(1, history, self.width))
        self.blocks = nn.ModuleList(
            AdaLNBlock(self.width, heads, head_width=head_width, hidden=hidden, dropout=dropout)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(self.width)

    def forward(self, z: Tensor, condition: Tensor, count: Tensor | None = None) -> Tensor:
        """Predict the frame after each frame.

        Args:
            z: [B, T, E] frame embeddings.
            condition: [B, T, D] embedded actions taken after each.
            count: [B] how many of the T frames are real (right-aligned); None means all.

        Returns:
            [B, T, D]; entry t is the prediction of frame t + 1.
        """
        x, mask = self.input(z), None
        if count is None:
            x = x + self.positions[:, : z.shape[1]]
        else:
            position, mask = visible(count, z.shape[1])
            x = x + self.positions[0, position]
        for block in self.blocks:
            x = block(x, condition, mask)
        return self.norm(x)

    def modulations(self, condition: Tensor) -> list[Tensor]:
        """What embedded actions [B, T, D] do to each block, [B, T, 6 D]; the same in every window."""
        return [block.modulation(condition) for block in self.blocks]  # type: ignore[operator]

    def extend(
        self, z: Tensor, modulations: list[Tensor], past: Memory | None, position: int
    ) -> tuple[Tensor, Memory]:
        """Predict what follows the newest of some frames, given the memory of those before them.

        Args:
            z: [B, T, E] the frames.
            modulations: [B, T, 6 D] for every block.
            past: keys and values of the frames before them, for every block.
            position: of the first of them in the window.

        Returns:
            [B, 1, D] prediction, and the keys and values of all frames of the window so far.
        """
        x = self.input(z) + self.positions[:, position : position + z.shape[1]]
        memory: Memory = []
        last = len(self.blocks) - 1
        for number, block in enumerate(self.blocks):
            seen = None if past is None else past[number]
            x, pair = block.extend(x, modulations[number], seen, newest=number == last)  # type: ignore[operator]
            memory.append(pair)
        return self.norm(x), memory


class Dream:
    """Predictions along plans, every frame computed as rarely as the sliding window allows.

    While the window grows its frames keep their positions, so only the newest is computed and the
    others are remembered. Once it slides all positions change and the window is computed anew; its
    frames from before the plan are then computed once for all plans of a row. What an action does to
    the blocks is computed once.

    Args:
        predictor: in any mode.
        past: [B, K, E] frames before the present one.
        taken: [B, K, D] embedded actions taken after them.
        plan: [B N, H, D] embedded actions to dream along, N plans of a row side by side.
    """

    def __init__(self, predictor: Predictor, past: Tensor, taken: Tensor, plan: Tensor) -> None:
        self.predictor, self.past = predictor, past
        self.taken, self.plan = predictor.modulations(taken), predictor.modulations(plan)
        self.candidates = len(plan) // len(past)
        self.frames: list[Tensor] = []
        self.memory: Memory | None = None

    def step(self, frame: Tensor) -> Tensor:
        """Go on from a frame [B N, 1, E] with its planned action to the next, [B N, 1, D]."""
        self.frames.append(frame)
        known, own = self.past.shape[1], len(self.frames)
        oldest = max(0, known + own - self.predictor.history)  # frame the window begins with
        new = own - 1
        if oldest or own == 1:
            self.memory = self._shared(oldest)
            new = max(0, oldest - known)
        modulations = [part[:, new:own] for part in self.plan]
        z = torch.cat(self.frames[new:], 1)
        following, self.memory = self.predictor.extend(
            z, modulations, self.memory, known + new - oldest
        )
        return following

    def _shared(self, oldest: int) -> Memory | None:
        """Memory of the window's frames from before the plan, for every plan; None without any."""
        if oldest >= self.past.shape[1]:
            return None
        modulations = [part[:, oldest:] for part in self.taken]
        _, memory = self.predictor.extend(self.past[:, oldest:], modulations, None, 0)
        many = self.candidates
        return [(k.repeat_interleave(many, 0), v.repeat_interleave(many, 0)) for k, v in memory]
