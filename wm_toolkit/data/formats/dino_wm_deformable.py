"""Released DINO-WM folders `deformable/rope` and `deformable/granular` (read only).

    states.pth              [N, T, P, 4] float: P particles
    actions.pth             [N, T, 4] float: where a stroke begins and ends, x and z of both
    {i:06d}/obses.pth       [>= T, H, W, 3] or [>= T, 3, H, W], 0..255

Rows, endings and the published split are those of the other DINO-WM folders. The robot has no state of
its own: the observation "proprio" is one zero, as published. The particles, flattened to P * 4 numbers,
are the extra column "state".

Zhou et al. 2025, "DINO-WM: World Models on Pre-trained Visual Features enable Zero-shot Planning".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wm_toolkit.data.foreign import refuse
from wm_toolkit.data.formats import FORMATS, read_only
from wm_toolkit.data.formats.dino_wm import ACTIONS, STATES, DinoWmReader

FRAMES = "{:06d}/obses.pth"


class DeformableReader(DinoWmReader):
    """A released folder; the frames of an episode are loaded when it is its turn.

    Args:
        path: the folder.

    Raises:
        DataError: naming the file that is missing, damaged or does not fit the others.

    Example:
        >>> next(DeformableReader(Path("deformable/rope")).episodes()).extras["state"].shape
        (20, 4000)
    """

    def _columns(self, states: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Proprioception [N, T, 1], and the particles."""
        self._check(states, 4, "(N, T, particles, 4)")
        flat = states.reshape(*states.shape[:2], -1)
        if len(bad := np.argwhere(~np.isfinite(flat))):
            episode, row, number = bad[0].tolist()
            what = f"{flat[episode, row, number]} of particle {number // states.shape[-1]}"
            refuse(self.path, "states", f"{what}, expected a number", episode=episode, row=row)
        return np.zeros((*states.shape[:2], 1), np.float32), {"state": flat}

    def _frame_file(self, episode: int) -> Path:
        return self.path / FRAMES.format(episode)


def _find(name_or_path: str | Path) -> Path | None:
    path = Path(name_or_path)
    known = all((path / name).is_file() for name in (STATES, ACTIONS, FRAMES.format(0)))
    return path if known else None


FORMATS.register("dino_wm_deformable", read_only("dino_wm_deformable", _find, DeformableReader))
