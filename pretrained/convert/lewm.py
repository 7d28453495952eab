"""Make an artefact of a released LeWorldModel.

    python pretrained/convert/lewm.py weights.pt config.json OUT --data NAME

Without the data set, give what its authors standardised actions with: `--mean -0.01 0.01 --std 0.2 0.2`.
Nothing of the files is run.
"""

from __future__ import annotations

import argparse

from convert_options import add_origin, origin_of, report

from wm_toolkit.recipes.published.lewm import convert_lewm


def main() -> int:
    """Parse, convert, say where it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", help="weights.pt, or another file of torch with the same model")
    parser.add_argument("config", help="config.json")
    parser.add_argument("out", help="folder of the artefact")
    parser.add_argument("--frame-skip", type=int, default=5, help="raw actions in a block")
    add_origin(parser)
    args = parser.parse_args()
    return report(
        lambda: convert_lewm(
            args.weights, args.config, args.out, origin=origin_of(args), frame_skip=args.frame_skip
        )
    )


if __name__ == "__main__":
    raise SystemExit(main())
