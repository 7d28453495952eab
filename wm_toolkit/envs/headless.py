"""Rendering without a display: which backend the simulators use, chosen before they are imported."""

from __future__ import annotations

import ctypes.util
import os
import sys


def prepare_headless() -> None:
    """Choose off-screen backends where nothing is chosen and there is no display.

    MuJoCo reads `MUJOCO_GL` when it is imported: EGL if the machine has it, else OSMesa. pygame reads
    `SDL_VIDEODRIVER` when it opens a window: "dummy". Whatever is set already stays as it is.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if not sys.platform.startswith("linux") or _has_display():
        return
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    backend = offscreen_backend()
    if backend is not None:
        os.environ.setdefault("MUJOCO_GL", backend)


def offscreen_backend() -> str | None:
    """The off-screen OpenGL library that MuJoCo can use here: "egl", "osmesa" or None."""
    return next((name for name in ("egl", "osmesa") if _has_library(name)), None)


def _has_display() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _has_library(backend: str) -> bool:
    return ctypes.util.find_library({"egl": "EGL", "osmesa": "OSMesa"}[backend]) is not None
