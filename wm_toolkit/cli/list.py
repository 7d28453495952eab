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
        kind: only this kind: recipes, planners, datasets, pretrained, formats, encoders, environments,
            protocols, benchmarks.
        json: print one JSON object {kind: {name: summary}}.
    """

    kind: Annotated[str, tyro.conf.Positional] = ""
    json: bool = False


def run(args: Args) -> int:
    """Print the names."""
    kinds = KINDS
    if args.kind:
        if args.kind not in KINDS:
            raise UnknownNameError(f"no kind {args.kind!r}.{did_you_mean(args.kind, KINDS)}")
        kinds = {args.kind: KINDS[args.kind]}
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

    return {
        name: RECIPES[name].summary if "." not in name else f"preset of {name.partition('.')[0]}"
        for name in recipe_names()
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
    """Our environments in Gymnasium's registry."""
    from gymnasium.envs.registration import registry

    from wm_toolkit.envs.registration import register_envs

    register_envs()
    ours = (spec for name, spec in registry.items() if name.startswith(("wm_toolkit/", "dmc/")))
    return {spec.id: _length(spec) for spec in ours}


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


def _length(spec: EnvSpec) -> str:
    if spec.namespace == "dmc":
        return "up to the suite's time limit"
    return f"up to {spec.max_episode_steps or 'any number of'} steps"


def _first_line(module: str) -> str:
    import importlib

    return (importlib.import_module(module).__doc__ or "").strip().partition("\n")[0]


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
