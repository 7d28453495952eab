"""Attention and transformer blocks shared by encoders and predictors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

KeysValues = tuple[Tensor, Tensor]
"""What attention remembers of frames it has seen: keys and values, [B, heads, T, head width] each."""


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection.

    Args:
        width: D.
        heads: number of heads.
        head_width: width of a head; default width / heads.
        bias: bias of the query, key and value projection.
        dropout: of attention weights and of the output.
        norm: an own LayerNorm on the input (as DINO-WM's and LeWorldModel's predictors have).
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
    ) -> None:
        super().__init__()
        inner = heads * (head_width or width // heads)
        self.heads, self.dropout = heads, dropout
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.qkv = nn.Linear(width, 3 * inner, bias=bias)
        self.out = nn.Linear(inner, width)

    def forward(self, x: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
        """Attend within each sequence.

        Args:
            x: [B, T, D].
            mask: [B, 1, T, T] bool, true where a query (row) may see a key (column).
            causal: see only the past and oneself; exclusive with `mask`.
        """
        batch, length, _ = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return self._mix(q, k, v, mask, causal=causal)

    def extend(
        self, x: Tensor, past: KeysValues | None = None, *, newest: bool = False
    ) -> tuple[Tensor, KeysValues]:
        """Causal attention of frames that follow remembered ones, with the same result as `forward`.

        Args:
            x: [B, T, D] the new frames.
            past: keys and values of the frames before them.
            newest: ask for the last frame only.

        Returns:
            [B, T, D] (or [B, 1, D]), and the keys and values of all frames so far.
        """
        hidden = self.norm(x)
        q, k, v = self._project(hidden[:, -1:] if newest else hidden, hidden)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        mask = None
        if q.shape[2] > 1:
            known = k.shape[2] - q.shape[2]
            mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=x.device).tril(known)
        return self._mix(q, k, v, mask), (k, v)

    def ask(self, asking: Tensor, x: Tensor) -> Tensor:
        """What `forward` gives for some of the tokens alone, without a mask.

        Args:
            asking: [B, t, D] those tokens.
            x: [B, T, D] all tokens.

        Returns:
            [B, t, D].
        """
        return self._mix(*self._project(self.norm(asking), self.norm(x)), None)

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

    def _mix(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, causal: bool = False
    ) -> Tensor:
        rate = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=rate, is_causal=causal
        )
        mixed = self.out(mixed.transpose(1, 2).flatten(2))
        return functional.dropout(mixed, rate, self.training)


def feed_forward(
    width: int, hidden: int, *, dropout: float = 0.0, norm: bool = False
) -> nn.Sequential:
    """The MLP of a transformer block, [..., D] -> [..., D]: (LayerNorm), Linear, GELU, Linear."""
    return nn.Sequential(
        nn.LayerNorm(width) if norm else nn.Identity(),
        nn.Linear(width, hidden),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, width),
        nn.Dropout(dropout),
    )


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x)).

    Args:
        width: D.
        heads: number of heads, of width D / heads.
        hidden: width of the MLP.
        eps: of the LayerNorms.
    """

    def __init__(self, width: int, heads: int, hidden: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = feed_forward(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def first(self, x: Tensor) -> Tensor:
        """What `forward` [B, T, D] gives for the first token alone, [B, 1, D], at less cost."""
        hidden = self.norm1(x)
        x = x[:, :1] + self.attention.ask(hidden[:, :1], hidden)
        return x + self.mlp(self.norm2(x))


class AdaLNBlock(nn.Module):
    """Causal transformer block modulated by a condition (AdaLN-zero; Peebles and Xie 2023).

    Shift, scale and gate of both branches are a linear map of the condition that starts at zero, so a
    fresh block is the identity. The branches have affine LayerNorms of their own behind the modulated
    ones, as in the published LeWorldModel.

    Args:
        width: D.
        heads: number of heads.
        head_width: width of a head, independent of D.
        hidden: width of the MLP.
        dropout: of attention weights, attention output and MLP.
    """

    def __init__(
        self, width: int, heads: int, *, head_width: int, hidden: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = Attention(
            width, heads, head_width=head_width, bias=False, dropout=dropout, norm=True
        )
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = feed_forward(width, hidden, dropout=dropout, norm=True)
        last = self.modulation[1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, condition: Tensor, mask: Tensor | None = None) -> Tensor:
        """One block.

        Args:
            x: [B, T, D].
            condition: [B, T, D], of the same frame.
            mask: [B, 1, T, T] bool; None means causal.
        """
        parts = self.modulation(condition).chunk(6, -1)
        shift1, scale1, gate1, shift2, scale2, gate2 = parts
        hidden = self.norm1(x) * (1 + scale1) + shift1
        x = x + gate1 * self.attention(hidden, mask, causal=mask is None)
        hidden = self.norm2(x) * (1 + scale2) + shift2
        return x + gate2 * self.mlp(hidden)

    def extend(
        self,
        x: Tensor,
        modulation: Tensor,
        past: KeysValues | None = None,
        *,
        newest: bool = False,
    ) -> tuple[Tensor, KeysValues]:
        """The block over frames that follow remembered ones, with the same result as `forward`.

        Args:
            x: [B, T, D] the new frames.
            modulation: [B, T, 6 D], `self.modulation` of their conditions.
            past: keys and values of the frames before them.
            newest: ask for the last frame only.

        Returns:
            [B, T, D] (or [B, 1, D]), and the keys and values of all frames so far.
        """
        shift, scale = modulation.chunk(6, -1)[:2]
        hidden = torch.addcmul(shift, self.norm1(x), 1 + scale)
        mixed, seen = self.attention.extend(hidden, past, newest=newest)
        if newest:
            x, modulation = x[:, -1:], modulation[:, -1:]
        _, _, gate1, shift, scale, gate2 = modulation.chunk(6, -1)
        x = torch.addcmul(x, gate1, mixed)
        hidden = torch.addcmul(shift, self.norm2(x), 1 + scale)
        return torch.addcmul(x, gate2, self.mlp(hidden)), seen
