"""Attention and transformer blocks shared by encoders and predictors."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional

from wm_toolkit.nn.rotary import Rotary

FEW = 4
"""Keys up to which plain products beat a CPU's attention kernel in bfloat16."""

KeysValues = tuple[Tensor, Tensor]
"""What attention remembers of frames it has seen: keys and values, [B, heads, T, head width] each."""


@dataclasses.dataclass(frozen=True)
class Frames:
    """How a sequence of tokens divides into frames, for causal attention.

    Attributes:
        tokens: P tokens of a frame; they see each other.
        window: frames that a token sees, its own included; None sees the whole past.
        rotary: turns queries and keys by their positions.
    """

    tokens: int = 1
    window: int | None = None
    rotary: Rotary | None = None


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection.

    Args:
        width: D.
        heads: number of heads.
        head_width: width of a head; default width / heads.
        bias: bias of the query, key and value projection.
        dropout: of attention weights and of the output.
        norm: an own LayerNorm on the input (as LeWorldModel's predictor has).
        frames: what causal attention counts as one moment, and how far it looks back.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        head_width: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        norm: bool = False,
        frames: Frames = Frames(),
    ) -> None:
        super().__init__()
        inner = heads * (head_width or width // heads)
        self.heads, self.dropout, self.frames = heads, dropout, frames
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.qkv = nn.Linear(width, 3 * inner, bias=bias)
        self.out = nn.Linear(inner, width)

    def forward(self, x: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
        """Attend within each sequence.

        Args:
            x: [B, T P, D].
            mask: [B, 1, T P, T P] bool, true where a query (row) may see a key (column).
            causal: see only the frames of the past and one's own; exclusive with `mask`.
        """
        batch, length, _ = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q, k = self._turn(q, 0), self._turn(k, 0)
        if causal and self.frames.tokens > 1:
            return self._finish(self._by_frame(q, k, v))
        if causal and self.frames.window is not None:
            return self._finish(self._mix(q, k, v, self._look_back(q, k)))
        return self._finish(self._mix(q, k, v, mask, causal=causal))

    def extend(
        self, x: Tensor, past: KeysValues | None = None, *, newest: bool = False, first: int = 0
    ) -> tuple[Tensor, KeysValues]:
        """Causal attention of frames that follow remembered ones, with the same result as `forward`.

        Args:
            x: [B, T P, D] the new frames.
            past: keys and values of the frames before them; those out of sight may be left out.
            newest: ask for the last frame only.
            first: when the first of the new frames is, for rotary positions.

        Returns:
            [B, T P, D] (or [B, P, D]), and the keys and values of all frames so far.
        """
        tokens, hidden = self.frames.tokens, self.norm(x)
        if past is None and x.shape[1] == tokens == 1:
            return self._alone(hidden, first)
        late = first + x.shape[1] // tokens - 1 if newest else first
        q, k, v = self._project(hidden[:, -tokens:] if newest else hidden, hidden)
        q, k = self._turn(q, late), self._turn(k, first)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        if tokens == 1 and q.shape[2] > 1 and not self._few(k):
            return self._finish(self._mix(q, k, v, self._look_back(q, k))), (k, v)
        return self._finish(self._by_frame(q, k, v)), (k, v)

    def _alone(self, hidden: Tensor, first: int) -> tuple[Tensor, KeysValues]:
        """The first token of all [B, 1, D] sees itself alone, so nobody asks for its query."""
        inner = self.out.in_features
        bias = None if self.qkv.bias is None else self.qkv.bias[inner:]
        found = self._split(functional.linear(hidden, self.qkv.weight[inner:], bias))
        k, v = found.chunk(2, 1)
        return self._finish(v), (self._turn(k, first), v)

    def _few(self, k: Tensor) -> bool:
        """Whether attention over keys [B, heads, T, width] is faster in plain products."""
        slow = k.device.type == "cpu" and k.dtype == torch.bfloat16 and k.shape[2] <= FEW
        return slow and not torch.is_grad_enabled() and not (self.training and self.dropout)

    def ask(self, asking: Tensor, x: Tensor) -> Tensor:
        """What `forward` gives for some of the tokens alone, without a mask.

        Args:
            asking: [B, t, D] those tokens.
            x: [B, T, D] all tokens.

        Returns:
            [B, t, D].
        """
        return self._finish(self._mix(*self._project(self.norm(asking), self.norm(x)), None))

    def _project(self, asking: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of normalised tokens [B, t, D], keys and values of all [B, T, D]."""
        inner = self.out.in_features
        weights = self.qkv.weight.split([inner, 2 * inner])
        bias = self.qkv.bias
        biases = (None, None) if bias is None else bias.split([inner, 2 * inner])
        q = self._split(functional.linear(asking, weights[0], biases[0]))
        k, v = self._split(functional.linear(x, weights[1], biases[1])).chunk(2, 1)
        return q, k, v

    def _split(self, x: Tensor) -> Tensor:
        """[B, T, n heads width] to [B, n heads, T, width]."""
        width = self.out.in_features // self.heads
        return x.unflatten(-1, (-1, width)).transpose(1, 2)

    def _turn(self, x: Tensor, first: int) -> Tensor:
        """Queries or keys [B, heads, T P, width] of frames from `first` on, turned by their positions."""
        return x if self.frames.rotary is None else self.frames.rotary.rotate(x, first)

    def _by_frame(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Block-causal attention frame by frame, so that nothing is computed only to be masked.

        Args:
            q: [B, heads, t P, width] the last t frames' queries.
            k: [B, heads, T P, width] keys of all frames; `v` likewise.
        """
        tokens, window = self.frames.tokens, self.frames.window
        known = k.shape[2] - q.shape[2]
        mixed = []
        for start in range(0, q.shape[2], tokens):
            end = known + start + tokens
            seen = slice(0 if window is None else max(0, end - window * tokens), end)
            mixed.append(
                self._mix(q[:, :, start : start + tokens], k[:, :, seen], v[:, :, seen], None)
            )
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed, 2)

    def _look_back(self, q: Tensor, k: Tensor) -> Tensor:
        """[t, T] mask for the last t of T tokens, each a frame of its own."""
        known = k.shape[2] - q.shape[2]
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(known)
        window = self.frames.window
        return mask if window is None else mask.triu(known - window + 1)

    def _mix(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, causal: bool = False
    ) -> Tensor:
        """[B, heads, t, width] values, weighted by how well queries and keys match."""
        if mask is None and not causal and self._few(k):
            return _plain_attention(q, k, v)
        rate = self.dropout if self.training else 0.0
        return functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=rate, is_causal=causal
        )

    def _finish(self, mixed: Tensor) -> Tensor:
        """[B, heads, t, width] to [B, t, D]."""
        mixed = self.out(mixed.transpose(1, 2).flatten(2))
        return functional.dropout(mixed, self.dropout if self.training else 0.0, self.training)


def _plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What the kernels compute, key by key: [B, heads, t, width] for few keys [B, heads, T, width]."""
    keys, values = k.split(1, 2), v.split(1, 2)
    match = torch.cat([(q * key).sum(-1, keepdim=True) for key in keys], -1)
    weights = (match * q.shape[-1] ** -0.5).softmax(-1).split(1, -1)
    mixed = weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=True):
        mixed = torch.addcmul(mixed, weight, value)
    return mixed


class GELU(nn.GELU):
    """GELU that overwrites its input where no gradient needs it: fresh memory costs a CPU more."""

    def forward(self, input: Tensor) -> Tensor:
        """[...] to [...]."""
        return super().forward(input) if torch.is_grad_enabled() else torch.ops.aten.gelu_(input)


def feed_forward(
    width: int, hidden: int, *, dropout: float = 0.0, norm: bool = False
) -> nn.Sequential:
    """The MLP of a transformer block, [..., D] -> [..., D]: (LayerNorm), Linear, GELU, Linear."""
    return nn.Sequential(
        nn.LayerNorm(width) if norm else nn.Identity(),
        nn.Linear(width, hidden),
        GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, width),
        nn.Dropout(dropout),
    )


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x)).

    Args:
        width: D.
        heads: number of heads.
        hidden: width of the MLP.
        eps: of the LayerNorms.
        head_width: width of a head; default D / heads.
        bias: of the query, key and value projection.
        dropout: of attention weights, attention output and MLP.
        frames: for causal attention.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        *,
        eps: float = 1e-6,
        head_width: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        frames: Frames = Frames(),
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attention = Attention(
            width, heads, head_width=head_width, bias=bias, dropout=dropout, frames=frames
        )
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = feed_forward(width, hidden, dropout=dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
        """[B, T, D] to [B, T, D]; `mask` and `causal` as for `Attention`."""
        x = x + self.attention(self.norm1(x), mask, causal=causal)
        return x + self.mlp(self.norm2(x))

    def first(self, x: Tensor) -> Tensor:
        """What `forward` [B, T, D] gives for the first token alone, [B, 1, D], at less cost."""
        hidden = self.norm1(x)
        x = x[:, :1] + self.attention.ask(hidden[:, :1], hidden)
        return x + self.mlp(self.norm2(x))

    def extend(
        self, x: Tensor, past: KeysValues | None = None, *, newest: bool = False, first: int = 0
    ) -> tuple[Tensor, KeysValues]:
        """The block over frames [B, T P, D] that follow remembered ones; see `Attention.extend`."""
        mixed, seen = self.attention.extend(self.norm1(x), past, newest=newest, first=first)
        x = x[:, -mixed.shape[1] :] + mixed
        return x + self.mlp(self.norm2(x)), seen


class AdaLNBlock(nn.Module):
    """Causal transformer block modulated by a condition (AdaLN; Peebles and Xie 2023).

    Shift, scale and gate of both branches are a linear map of the condition. Where it starts at zero
    (AdaLN-zero) a fresh block is the identity.

    Args:
        width: D.
        heads: number of heads.
        head_width: width of a head; default D / heads.
        hidden: width of the MLP.
        bias: of the query, key and value projection.
        dropout: of attention weights, attention output and MLP.
        inner_norms: as in the published LeWorldModel, the branches have affine LayerNorms of their own
            behind modulated ones that are not; else the modulated ones are affine and the only ones.
        modulation_std: initial deviation of the map from the condition; 0 is AdaLN-zero.
        frames: for causal attention.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        head_width: int | None = None,
        hidden: int,
        bias: bool = False,
        dropout: float = 0.0,
        inner_norms: bool = True,
        modulation_std: float = 0.0,
        frames: Frames = Frames(),
    ) -> None:
        super().__init__()
        self.tokens = frames.tokens
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=not inner_norms)
        self.attention = Attention(
            width,
            heads,
            head_width=head_width,
            bias=bias,
            dropout=dropout,
            norm=inner_norms,
            frames=frames,
        )
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=not inner_norms)
        self.mlp = feed_forward(width, hidden, dropout=dropout, norm=inner_norms)
        last = self.modulation[1]
        assert isinstance(last, nn.Linear)
        if modulation_std:
            nn.init.trunc_normal_(last.weight, std=modulation_std)
        else:
            nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, condition: Tensor, mask: Tensor | None = None) -> Tensor:
        """One block.

        Args:
            x: [B, T P, D].
            condition: [B, T, D], one for all tokens of a frame.
            mask: [B, 1, T P, T P] bool; None means causal.
        """
        parts = self._parts(self.modulation(condition))
        shift1, scale1, gate1, shift2, scale2, gate2 = parts
        x = self._by_frame(x)
        hidden = self.norm1(x) * (1 + scale1) + shift1
        mixed = self.attention(hidden.flatten(1, 2), mask, causal=mask is None)
        x = x + gate1 * self._by_frame(mixed)
        hidden = self.norm2(x) * (1 + scale2) + shift2
        return (x + gate2 * self.mlp(hidden)).flatten(1, 2)

    def extend(
        self,
        x: Tensor,
        modulation: Tensor,
        past: KeysValues | None = None,
        *,
        newest: bool = False,
        first: int = 0,
    ) -> tuple[Tensor, KeysValues]:
        """The block over frames that follow remembered ones, with the same result as `forward`.

        Args:
            x: [B, T P, D] the new frames.
            modulation: [B, T, 6 D], `self.modulation` of their conditions.
            past: keys and values of the frames before them.
            newest: ask for the last frame only.
            first: when the first of the new frames is, for rotary positions.

        Returns:
            [B, T P, D] (or [B, P, D]), and the keys and values of all frames so far.
        """
        shift1, scale1, *_ = self._parts(modulation)
        x = self._by_frame(x)
        hidden = torch.addcmul(shift1, self.norm1(x), 1 + scale1).flatten(1, 2)
        mixed, seen = self.attention.extend(hidden, past, newest=newest, first=first)
        if newest:
            x, modulation = x[:, -1:], modulation[:, -1:]
        _, _, gate1, shift2, scale2, gate2 = self._parts(modulation)
        x = torch.addcmul(x, gate1, self._by_frame(mixed))
        hidden = torch.addcmul(shift2, self.norm2(x), 1 + scale2)
        return torch.addcmul(x, gate2, self.mlp(hidden)).flatten(1, 2), seen

    def _by_frame(self, x: Tensor) -> Tensor:
        """[B, T P, D] to [B, T, P, D]."""
        return x.unflatten(1, (-1, self.tokens))

    def _parts(self, modulation: Tensor) -> tuple[Tensor, ...]:
        """[B, T, 6 D] to shift, scale and gate of both branches, [B, T, 1, D] each."""
        return modulation.unsqueeze(2).chunk(6, -1)
