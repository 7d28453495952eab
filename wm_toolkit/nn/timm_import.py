"""Imports timm, also beside a CPU-only torch whose torchvision has no compiled operators.

timm imports torchvision, and torchvision registers fake implementations of two operators that its compiled
library declares. There is no CPU build of torchvision on PyPI; beside a CPU-only torch the library does not
load, the operators are undeclared, and the import ends in "operator torchvision::nms does not exist". timm
uses neither of them, so declaring the two schemas is enough. Where torchvision is whole its own library
declares them, and a second declaration would abort the process: that case is tested first.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

import torch

_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


@cache
def import_timm() -> ModuleType:
    """The timm module."""
    _complete_torchvision()
    import timm

    return timm


@cache
def _complete_torchvision() -> torch.library.Library | None:
    """Declare what is missing; the result must stay alive as long as the declarations are needed."""
    if _library_loads():
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in _SCHEMAS.items():
        library.define(name + schema)
    return library


def _library_loads() -> bool:
    """Whether torchvision's compiled operators are there, or load without importing torchvision."""
    if hasattr(torch.ops.torchvision, "nms"):
        return True
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return True  # nothing to mend: timm will say what is missing
    for library in sorted(Path(found.origin).parent.glob("_C*.so")):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            return False
    return hasattr(torch.ops.torchvision, "nms")
