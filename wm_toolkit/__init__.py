"""World models: train once, save, load in one line, dream in, plan with.

Importing this package is cheap; torch is imported with the first name that needs it. Our environments join
Gymnasium's registry when both packages have been imported, in either order.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "Agent": "wm_toolkit.agents.agent",
    "Batch": "wm_toolkit.batch",
    "Goal": "wm_toolkit.planning.objective",
    "Reward": "wm_toolkit.planning.objective",
    "Survival": "wm_toolkit.planning.objective",
    "Spaces": "wm_toolkit.spaces",
    "Struct": "wm_toolkit.structs",
    "Trainer": "wm_toolkit.training.trainer",
    "TrajectoryDataset": "wm_toolkit.data.dataset",
    "WorldModel": "wm_toolkit.models.base",
    "build": "wm_toolkit.registry",
    "CEM": "wm_toolkit.planning.cem",
    "CategoricalCEM": "wm_toolkit.planning.categorical",
    "GradientPlanner": "wm_toolkit.planning.gradient",
    "ICEM": "wm_toolkit.planning.icem",
    "MPPI": "wm_toolkit.planning.mppi",
    "evaluate": "wm_toolkit.training.evaluate",
    "evaluate_returns": "wm_toolkit.training.returns",
    "train": "wm_toolkit.training.jobs",
}

__all__ = ["__version__", *sorted(_LAZY)]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    from wm_toolkit.errors import did_you_mean

    raise AttributeError(
        f"module 'wm_toolkit' has no attribute {name!r}.{did_you_mean(name, _LAZY)}"
    )


def __dir__() -> list[str]:
    return __all__


class _RegisterLater(importlib.abc.MetaPathFinder):
    """Waits for gymnasium to be imported, then adds our environments to its registry."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """Gymnasium's own spec, with our registration behind its execution; None for the rest."""
        if fullname != "gymnasium":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                importlib.import_module("wm_toolkit.envs")

            spec.loader.exec_module = execute_and_register
        return spec


if "gymnasium" in sys.modules:
    importlib.import_module("wm_toolkit.envs")
else:
    sys.meta_path.insert(0, _RegisterLater())
