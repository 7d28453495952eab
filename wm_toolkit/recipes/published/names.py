"""Moves tensors of a published checkpoint to the names and shapes of our model, leaving none behind."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from wm_toolkit.checkpoint import load_state
from wm_toolkit.errors import CheckpointError

Rules = Sequence[tuple[str, str]]
"""(our name, their name): a regular expression and what it becomes, a first match counts.

Several of their names, joined by a space, are concatenated along the first axis.
"""


def load_renamed(
    module: nn.Module,
    state: Mapping[str, Tensor],
    rules: Rules,
    where: str,
    *,
    unused: Sequence[str] = (),
) -> None:
    """Fill a module with tensors that have other names.

    Floating-point tensors become float32 here; a convolution kernel [out, in, ...] fits the linear map
    [out, in ...] that does the same.

    Args:
        module: ours.
        state: theirs.
        rules: from our names to theirs; a name without a rule is the same in both.
        where: what the tensors come from, for errors.
        unused: regular expressions of their names that our model has no use for.

    Raises:
        CheckpointError: naming their tensors that are missing, left over, of another shape, or hold what
            is no number.
    """
    own = module.state_dict()
    sources = {name: _theirs(name, rules).split() for name in own}
    wanted = [name for names in sources.values() for name in names]
    _check_names(state, wanted, unused, where)
    _check_finite(state, wanted, where)
    moved = {
        name: _fitted([state[source] for source in names], own[name].shape)
        for name, names in sources.items()
    }
    wrong = [
        f"{' + '.join(sources[n])} {_shapes(state, sources[n])} instead of {tuple(own[n].shape)}"
        for n in own
        if moved[n].shape != own[n].shape
    ]
    if wrong:
        raise CheckpointError(f"{where} has {len(wrong)} tensors of other shapes: {_few(wrong)}")
    load_state(module, moved, where)


def without_prefix(state: Mapping[str, Tensor], known: str) -> dict[str, Tensor]:
    """The tensors beside the one whose name ends with `known`, less what stands before it.

    Trainers wrap a model, which puts a prefix before its names; what they hold beside it goes.
    """
    found = [name for name in state if name == known or name.endswith(f".{known}")]
    prefix = min(found, key=len).removesuffix(known) if found else ""
    return {name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)}


def count(state: Iterable[str], pattern: str) -> int:
    """How many blocks there are: one more than the largest number where `pattern` has a group."""
    matches = (re.match(pattern, name) for name in state)
    return 1 + max((int(match[1]) for match in matches if match), default=-1)


def _theirs(name: str, rules: Rules) -> str:
    for ours, theirs in rules:
        if re.fullmatch(ours, name):
            return re.sub(ours, theirs, name)
    return name


def _check_names(
    state: Mapping[str, Tensor], wanted: Sequence[str], unused: Sequence[str], where: str
) -> None:
    missing = [name for name in wanted if name not in state]
    if missing:
        raise CheckpointError(
            f"{where} lacks {len(missing)} of {len(wanted)} tensors: {_few(missing)}; it is "
            "incomplete, or the model of another configuration"
        )
    known = set(wanted)
    left = [n for n in state if n not in known and not any(re.fullmatch(u, n) for u in unused)]
    if left:
        raise CheckpointError(
            f"{where} has {len(left)} tensors that this model has no place for: {_few(left)}; it is "
            "the model of another configuration"
        )


def _check_finite(state: Mapping[str, Tensor], wanted: Sequence[str], where: str) -> None:
    bad = [name for name in wanted if not state[name].isfinite().all()]
    if bad:
        raise CheckpointError(
            f"{where} has {len(bad)} tensors with NaN or infinity: {_few(bad)}; the training that wrote "
            "it had failed, or the file is damaged"
        )


def _fitted(parts: Sequence[Tensor], shape: torch.Size) -> Tensor:
    """One tensor of the parts, flattened if that is what `shape` wants."""
    value = torch.cat(list(parts)) if len(parts) > 1 else parts[0]
    if value.is_floating_point():
        value = value.float()
    return value.flatten(1) if value.ndim > 2 and value.ndim > len(shape) else value


def _shapes(state: Mapping[str, Tensor], names: Sequence[str]) -> str:
    return " + ".join(str(tuple(state[name].shape)) for name in names)


def _few(items: Sequence[str], most: int = 3) -> str:
    return ", ".join(items[:most]) + (" ..." if len(items) > most else "")
