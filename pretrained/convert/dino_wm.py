"""Make an artefact of a released DINO-WM.

    python pretrained/convert/dino_wm.py model_latest.pth hydra.yaml OUT --data NAME

Push-T's statistics are known; for other tasks name the data set, or give the statistics (see --help).
Nothing of the files is run. The frozen DINOv2 is not among them: it is taken from the hub's cache, downloaded,
or read from `--encoder-weights PATH.safetensors`.
"""

from __future__ import annotations

import argparse

from convert_options import add_origin, origin_of, report

from wm_toolkit.recipes.published.dino_wm import convert_dino_wm


def main() -> int:
    """Parse, convert, say where it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="model_latest.pth")
    parser.add_argument("hydra", help="hydra.yaml")
    parser.add_argument("out", help="folder of the artefact")
    parser.add_argument("--encoder-weights", default="hub", help="hub, or a .safetensors file")
    add_origin(parser, proprio=True)
    args = parser.parse_args()
    return report(
        lambda: convert_dino_wm(
            args.checkpoint,
            args.hydra,
            args.out,
            origin=origin_of(args),
            encoder_weights=args.encoder_weights,
        )
    )


if __name__ == "__main__":
    raise SystemExit(main())
