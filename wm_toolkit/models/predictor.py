"""Predicts the next frame's tokens from a window of frames and actions."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from wm_toolkit.errors import ConfigError
from wm_toolkit.models.window import visible
from wm_toolkit.nn.rotary import Rotary
from wm_toolkit.nn.transformer import AdaLNBlock, Attention, Block, Frames, KeysValues

Memory = list[KeysValues]
"""Keys and values of every block."""

Conditioning = Literal["adaln", "concat"]
Positions = Literal["learned", "rotary", "mixed"]


class Predictor(nn.Module):
    """Causal transformer over frames of P tokens, conditioned on the action taken after each frame.

    Tokens of a frame see each other and those of earlier frames. LeWorldModel has one token a frame and
    modulates the blocks by the action (AdaLN); DINO-WM has one per patch and appends the action to each.

    Args:
        embedding: E, width of a token.
        width: D, width of the transformer, to which its input is mapped; None takes that of its input,
            which then enters as it is.
        tokens: P of a frame.
        history: frames it sees at once.
        layers: number of blocks.
        heads: attention heads, of width `head_width` each.
        head_width: width of a head.
        hidden: width of the MLPs.
        dropout: inside the blocks.
        conditioning: "adaln" lets the embedded action modulate every block; "concat" appends it to every
            token of its frame.
        condition: C, width of an embedded action for "concat"; for "adaln" it is D.
        positions: "learned" tells every token its place in the window, "rotary" turns queries and keys
            by time and place in the square of patches, "mixed" does that and tells every token its place
            in the frame, whatever the time.
        position_std: deviation of the initial position embeddings; small ones let a short training
            begin with the content of the frames.
        window: frames that a token sees in each block, its own included; None sees the whole history.
        bias: of the query, key and value projections.
        inner_norms: of the AdaLN blocks; see `AdaLNBlock`.
        modulation_std: initial deviation of the AdaLN maps; 0 is AdaLN-zero.
        rescale: divide the initial weights that write to the residual stream by sqrt(2 n) in block n,
            so that depth does not make it grow (as V-JEPA and JEPA-WMs begin).

    Raises:
        ConfigError: if an option is unknown, or the patches make no square for rotary positions.
    """

    def __init__(
        self,
        embedding: int,
        *,
        width: int | None = None,
        tokens: int = 1,
        history: int = 3,
        layers: int = 6,
        heads: int = 16,
        head_width: int = 64,
        hidden: int = 2048,
        dropout: float = 0.1,
        conditioning: Conditioning = "adaln",
        condition: int = 0,
        positions: Positions = "learned",
        position_std: float = 1.0,
        window: int | None = None,
        bias: bool = False,
        inner_norms: bool = True,
        modulation_std: float = 0.0,
        rescale: bool = False,
    ) -> None:
        super().__init__()
        if conditioning not in get_args(Conditioning) or positions not in get_args(Positions):
            raise ConfigError(
                f"conditioning is {conditioning!r} and positions {positions!r}; expected one of "
                f"{get_args(Conditioning)} and of {get_args(Positions)}"
            )
        self.embedding, self.tokens, self.history = embedding, tokens, history
        self.conditioning, self.window = conditioning, window
        entering = embedding + (condition if conditioning == "concat" else 0)
        self.width = width or entering
        self.condition = condition if conditioning == "concat" else self.width
        self.input = nn.Identity() if width is None else nn.Linear(entering, width)
        self.positions: nn.Parameter | None = None
        if positions != "rotary":
            places = tokens if positions == "mixed" else history * tokens
            self.positions = nn.Parameter(position_std * torch.randn(1, places, self.width))
        self.timeless = positions == "mixed"
        rotary = None if positions == "learned" else Rotary(tokens)
        frames = Frames(tokens, window, rotary)
        shape = {"head_width": head_width, "hidden": hidden, "bias": bias, "dropout": dropout}
        self.blocks = nn.ModuleList(
            AdaLNBlock(
                self.width,
                heads,
                inner_norms=inner_norms,
                modulation_std=modulation_std,
                frames=frames,
                **shape,
            )
            if conditioning == "adaln"
            else Block(self.width, heads, eps=1e-5, frames=frames, **shape)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(self.width)
        if rescale:
            _rescale(self.blocks)

    def forward(self, z: Tensor, condition: Tensor, count: Tensor | None = None) -> Tensor:
        """Predict the frame after each frame.

        Args:
            z: [B, T, P, E] tokens of the frames (or [B, T, E] for one token a frame).
            condition: [B, T, C] embedded actions taken after each.
            count: [B] how many of the T frames are real (right-aligned); None means all.

        Returns:
            [B, T, P, D] (or [B, T, D]); entry t is the prediction of frame t + 1.
        """
        x, mask = self._enter(z, condition), None
        if count is None:
            x = self._place(x, 0)
        else:
            position, mask = visible(count, z.shape[1], self.window)
            mask = _per_token(mask, self.tokens)
            x = self._place(x, position)
        for block in self.blocks:
            if isinstance(block, AdaLNBlock):
                x = block(x, condition, mask)
            else:
                x = block(x, mask, causal=mask is None)
        return self.norm(x).view(*z.shape[:-1], -1)

    def conditions(self, condition: Tensor) -> list[Tensor]:
        """What embedded actions [B, T, C] do, the same in every window.

        Returns:
            [B, T, 6 D] modulations of every block; with "concat" the embedded actions alone.
        """
        if self.conditioning == "concat":
            return [condition]
        return [block.modulation(condition) for block in self.blocks]  # type: ignore[operator]

    def extend(
        self,
        z: Tensor,
        conditions: list[Tensor],
        past: Memory | None,
        position: int,
        *,
        newest: bool = True,
    ) -> tuple[Tensor, Memory]:
        """Predict what follows some frames, given the memory of those before them.

        Args:
            z: [B, T, P, E] the frames (or [B, T, E] for one token a frame).
            conditions: what their actions do; see `conditions`.
            past: keys and values of the frames before them, for every block.
            position: of the first of them in the window.
            newest: predict after the last of them only.

        Returns:
            [B, 1 or T, P, D] predictions (or [B, 1 or T, D]), and the keys and values of all frames so
            far.
        """
        x = self._place(self._enter(z, conditions[0]), position)
        memory: Memory = []
        last = len(self.blocks) - 1
        for number, block in enumerate(self.blocks):
            modulation = (conditions[number],) if isinstance(block, AdaLNBlock) else ()
            x, pair = block.extend(  # type: ignore[operator]
                x,
                *modulation,
                past=None if past is None else past[number],
                newest=newest and number == last,
                first=position,
            )
            memory.append(pair)
        frames = 1 if newest else z.shape[1]
        return self.norm(x).view(len(z), frames, *z.shape[2:-1], -1), memory

    def _enter(self, z: Tensor, condition: Tensor) -> Tensor:
        """Frames [B, T, P, E] as a sequence [B, T P, D]."""
        if self.conditioning == "concat":
            every = condition.unsqueeze(2) if z.ndim == 4 else condition
            z = torch.cat([z, every.expand(*z.shape[:-1], -1)], -1)
        return self.input(z).flatten(1, -2)

    def _place(self, x: Tensor, first: int | Tensor) -> Tensor:
        """Tell a sequence [B, T P, D] its places, from frame `first` on or at frames [B, T]."""
        if self.positions is None:
            return x
        places, frames = (
            self.positions[0].unflatten(0, (-1, self.tokens)),
            x.shape[1] // self.tokens,
        )
        if self.timeless:
            return x + places.expand(frames, -1, -1).flatten(0, 1)
        at = places[first : first + frames] if isinstance(first, int) else places[first]
        return x + at.flatten(-3, -2)


class Dream:
    """Predictions along plans, every frame computed as rarely as the sliding window allows.

    While the window grows its frames keep their positions, so only the newest is computed and the
    others are remembered. Once it slides all positions change and the window is computed anew; its
    frames from before the plan are then computed once for all plans of a row. What an action does to
    the blocks is computed once. Where attention looks back a few frames only, no more are remembered.

    Args:
        predictor: in any mode.
        past: [B, K, P, E] frames before the present one.
        taken: [B, K, C] embedded actions taken after them.
        plan: [B N, H, C] embedded actions to dream along, N plans of a row side by side.
    """

    def __init__(self, predictor: Predictor, past: Tensor, taken: Tensor, plan: Tensor) -> None:
        self.predictor, self.past = predictor, past
        self.taken, self.plan = predictor.conditions(taken), predictor.conditions(plan)
        self.candidates = len(plan) // len(past)
        self.frames: list[Tensor] = []
        self.memory: Memory | None = None

    def step(self, frame: Tensor) -> Tensor:
        """Go on from a frame [B N, 1, P, E] with its planned action to the next, [B N, 1, P, D]."""
        self.frames.append(frame)
        known, own = self.past.shape[1], len(self.frames)
        oldest = max(0, known + own - self.predictor.history)  # frame the window begins with
        new = own - 1
        if oldest or own == 1:
            self.memory = self._shared(oldest)
            new = max(0, oldest - known)
        conditions = [part[:, new:own] for part in self.plan]
        z = frame if new == own - 1 else torch.cat(self.frames[new:], 1)
        following, memory = self.predictor.extend(z, conditions, self.memory, known + new - oldest)
        self.memory = self._in_sight(memory)
        return following

    def _shared(self, oldest: int) -> Memory | None:
        """Memory of the window's frames from before the plan, for every plan; None without any."""
        if oldest >= self.past.shape[1]:
            return None
        conditions = [part[:, oldest:] for part in self.taken]
        _, memory = self.predictor.extend(self.past[:, oldest:], conditions, None, 0)
        many = self.candidates
        memory = self._in_sight(memory)
        return [(k.repeat_interleave(many, 0), v.repeat_interleave(many, 0)) for k, v in memory]

    def _in_sight(self, memory: Memory) -> Memory:
        """The part of a memory that frames to come can see."""
        if self.predictor.window is None:
            return memory
        least = (self.predictor.window - 1) * self.predictor.tokens
        return [tuple(x[:, :, max(0, x.shape[2] - least) :] for x in pair) for pair in memory]  # type: ignore[misc]


def _per_token(mask: Tensor, tokens: int) -> Tensor:
    """A mask over frames [B, 1, T, T] as one over their tokens, [B, 1, T P, T P]."""
    if tokens == 1:
        return mask
    return mask.repeat_interleave(tokens, -1).repeat_interleave(tokens, -2)


@torch.no_grad()
def _rescale(blocks: nn.ModuleList) -> None:
    for number, block in enumerate(blocks, 1):
        attention, mlp = block.attention, block.mlp
        assert isinstance(attention, Attention)
        assert isinstance(mlp, nn.Sequential)
        last = mlp[4]
        assert isinstance(last, nn.Linear)
        for linear in (attention.out, last):
            linear.weight.div_(math.sqrt(2 * number))
