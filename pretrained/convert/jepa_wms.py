"""Make an artefact of a released DINO-WM baseline of JEPA-WMs.

    python pretrained/convert/jepa_wms.py jepa-latest.pth.tar TRAINING.yaml OUT --data NAME

Push-T's statistics are known; for other tasks name the data set, or give the statistics (see --help).
Nothing of the files is run. The frozen DINOv2 is not among them: it is taken from the hub's cache, downloaded,
or read from `--encoder-weights PATH.safetensors`.
"""

from __future__ import annotations

from convert_options import convert_frozen

from wm_toolkit.recipes.published.jepa_wms import convert_jepa_wms

if __name__ == "__main__":
    raise SystemExit(
        convert_frozen(__doc__, ("jepa-latest.pth.tar", "TRAINING.yaml"), convert_jepa_wms)
    )
