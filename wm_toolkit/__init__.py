"""World models: train once, save, load in one line, dream in, plan with.

Importing this package is cheap; torch is imported with the first name that needs it. Our environments join
Gymnasium's registry at once if gymnasium has been imported before, else with the first name that is used.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "Agent": "wm_toolkit.agents.agent",
    "Batch": "wm_toolkit.batch",
    "Goal": "wm_toolkit.planning.objective",
    "Reward": "wm_toolkit.planning.objective",
    "Spaces": "wm_toolkit.spaces",
    "Struct": "wm_toolkit.structs",
    "Trainer": "wm_toolkit.training.trainer",
    "TrajectoryDataset": "wm_toolkit.data.dataset",
    "WorldModel": "wm_toolkit.models.base",
    "build": "wm_toolkit.registry",
    "CEM": "wm_toolkit.planning.cem",
    "ICEM": "wm_toolkit.planning.icem",
    "MPPI": "wm_toolkit.planning.mppi",
    "evaluate": "wm_toolkit.training.evaluate",
}

__all__ = ["__version__", *sorted(_LAZY)]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        importlib.import_module("wm_toolkit.envs")
        return getattr(importlib.import_module(_LAZY[name]), name)
    from wm_toolkit.errors import did_you_mean

    raise AttributeError(
        f"module 'wm_toolkit' has no attribute {name!r}.{did_you_mean(name, _LAZY)}"
    )


def __dir__() -> list[str]:
    return __all__


if "gymnasium" in sys.modules:
    importlib.import_module("wm_toolkit.envs")
