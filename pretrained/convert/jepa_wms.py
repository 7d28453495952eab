"""Make an artefact of a released DINO-WM baseline of JEPA-WMs.

    python pretrained/convert/jepa_wms.py jepa-latest.pth.tar TRAINING.yaml OUT --data NAME

Push-T's statistics are known; for other tasks name the data set, or give the statistics (see --help).
Nothing of the files is run. The frozen DINOv2 is not among them: it is taken from the hub's cache, downloaded,
or read from `--encoder-weights PATH.safetensors`.
"""

from __future__ import annotations

import argparse

from convert_options import add_origin, origin_of, report

from wm_toolkit.recipes.published.jepa_wms import convert_jepa_wms


def main() -> int:
    """Parse, convert, say where it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="jepa-latest.pth.tar")
    parser.add_argument("settings", help="TRAINING.yaml")
    parser.add_argument("out", help="folder of the artefact")
    parser.add_argument("--encoder-weights", default="hub", help="hub, or a .safetensors file")
    add_origin(parser, proprio=True)
    args = parser.parse_args()
    return report(
        lambda: convert_jepa_wms(
            args.checkpoint,
            args.settings,
            args.out,
            origin=origin_of(args),
            encoder_weights=args.encoder_weights,
        )
    )


if __name__ == "__main__":
    raise SystemExit(main())
