"""Make an artefact of a released DINO-WM.

    python pretrained/convert/dino_wm.py model_latest.pth hydra.yaml OUT --data NAME

Push-T's statistics are known; for other tasks name the data set, or give the statistics (see --help).
Nothing of the files is run. The frozen DINOv2 is not among them: it is taken from the hub's cache, downloaded,
or read from `--encoder-weights PATH.safetensors`.
"""

from __future__ import annotations

from convert_options import convert_frozen

from wm_toolkit.recipes.published.dino_wm import convert_dino_wm

if __name__ == "__main__":
    raise SystemExit(convert_frozen(__doc__, ("model_latest.pth", "hydra.yaml"), convert_dino_wm))
