"""`wm list`: every name that another command accepts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import tyro

from wm_toolkit import catalog
from wm_toolkit.cli import output
from wm_toolkit.errors import UnknownNameError, did_you_mean

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec

Names = dict[str, str]
"""Names and one line about each."""


@dataclasses.dataclass(frozen=True)
class Args:
    """Show recipes, planners, data sets, models, formats, environments and every other kind of name.

    For example: `wm list`, or `wm list recipes --json`.

    Attributes:
        kind: only this kind: recipes, planners, datasets, pretrained, formats, encoders, environments
            (or envs), protocols, benchmarks.
        json: print one JSON object {kind: {name: summary}}.
    """

    kind: Annotated[str, tyro.conf.Positional] = ""
    json: bool = False


def run(args: Args) -> int:
    """Print the names."""
    kinds = KINDS
    if args.kind:
        kind = _SHORT.get(args.kind, args.kind)
        if kind not in KINDS:
            raise UnknownNameError(f"no kind {args.kind!r}.{did_you_mean(args.kind, KINDS)}")
        kinds = {kind: KINDS[kind]}
    found = {kind: names() for kind, names in kinds.items()}
    if args.json:
        output.emit(found)
        return 0
    for kind, names in found.items():
        rows = [(name, summary) for name, summary in names.items()] or [("(none)", "")]
        output.show_table(["name", "what it is"], rows, title=kind)
    return 0


def recipes() -> Names:
    """Recipes and presets."""
    from wm_toolkit.registry import RECIPES, recipe_names

    split = {name: name.partition(".") for name in recipe_names()}
    return {
        name: RECIPES[base].summary_of(preset) if preset else RECIPES[base].summary
        for name, (base, _, preset) in split.items()
    }


def planners() -> Names:
    """Searches that a config can name."""
    from wm_toolkit.planning.base import PLANNERS

    return {name: (PLANNERS[name].__doc__ or "").partition("\n")[0] for name in PLANNERS.names()}


def datasets() -> Names:
    """The catalog, and what was prepared on this machine."""
    names = {name: entry.summary for name, entry in catalog.entries("datasets").items()}
    for file in sorted((catalog.home() / "datasets").glob("*.h5")):
        about = names.get(file.stem, "")
        names[file.stem] = f"{about} [prepared: {file}]".strip()
    return names


def pretrained() -> Names:
    """Saved agents that ship with the package."""
    return {name: entry.summary for name, entry in catalog.entries("pretrained").items()}


def formats() -> Names:
    """Data formats that can be read, and those that can be written."""
    from wm_toolkit.data.formats import FORMATS

    known = {name: FORMATS[name] for name in FORMATS.names()}
    return {n: f.summary or _first_line(f.read.__module__) for n, f in known.items()}


def encoders() -> Names:
    """Frozen encoders whose features `wm convert --encode` stores."""
    from wm_toolkit.encoders.named import ENCODERS

    return {name: ENCODERS[name].summary for name in ENCODERS.names()}


def environments() -> Names:
    """Our environments in Gymnasium's registry, and the packages whose own ids are known."""
    from gymnasium.envs.registration import registry

    from wm_toolkit.envs.registration import PACKAGES, register_envs

    register_envs()
    ours = (spec for spec in registry.values() if spec.namespace in _NAMESPACES)
    names = {spec.id: _about(spec) for spec in ours if _is_shown(spec.id)}
    return names | {
        one.example: f"and every id {' or '.join(f'{start}...' for start in one.starts)} [{one.extra}]"
        for one in PACKAGES
    }


_NAMESPACES = {
    "wm_toolkit": "",
    "dmc": "up to the suite's time limit [dmc]",
    "atari100k": "Atari 100k: 64 px, no sticky actions, up to 108,000 frames [atari]",
    "atari": "200M-frame protocol: 96 px, grey, sticky actions, up to 108,000 frames [atari]",
    "crafter": "up to 10,000 steps [crafter]",
    "bsuite": "",
}


def _is_shown(name: str) -> bool:
    """The Behaviour Suite's experiments are shown by their first setting alone."""
    return not name.startswith("bsuite/") or name.endswith("-0")


def protocols() -> Names:
    """Published evaluation protocols, and where they are not kept to the letter."""
    from wm_toolkit.training.protocols import PROTOCOLS

    known = [PROTOCOLS[name] for name in PROTOCOLS.names()]
    return {
        p.name: f"{p.summary}. Differs: {p.deviation}" if p.deviation else p.summary for p in known
    }


def benchmarks() -> Names:
    """What `wm bench` measures."""
    from wm_toolkit.cli.benchmarks import BENCHMARKS

    return {name: BENCHMARKS[name].summary for name in BENCHMARKS.names()}


def _about(spec: EnvSpec) -> str:
    from wm_toolkit.envs.registration import BSUITE

    if spec.namespace == "bsuite":
        return f"settings -0 to -{BSUITE[spec.kwargs['experiment']] - 1} [bsuite]"
    return _NAMESPACES[str(spec.namespace)] or (
        f"up to {spec.max_episode_steps or 'any number of'} steps"
    )


def _first_line(module: str) -> str:
    import importlib

    return (importlib.import_module(module).__doc__ or "").strip().partition("\n")[0]


_SHORT = {"envs": "environments"}

KINDS: dict[str, Callable[[], Names]] = {
    "recipes": recipes,
    "planners": planners,
    "datasets": datasets,
    "pretrained": pretrained,
    "formats": formats,
    "encoders": encoders,
    "environments": environments,
    "protocols": protocols,
    "benchmarks": benchmarks,
}
