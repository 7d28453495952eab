"""What the conversion scripts share: where the data are, and how they end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from wm_toolkit.errors import WmError
from wm_toolkit.recipes.published.artefact import Numbers, Origin


def add_origin(parser: argparse.ArgumentParser, *, proprio: bool = False) -> None:
    """Options for the data set, or for its statistics."""
    parser.add_argument("--data", help="name or path of the data set the model was trained on")
    parser.add_argument("--bound", type=float, default=1.0, help="largest raw action, without data")
    for prefix, what in (("", "action"), *([("proprio-", "proprioception")] if proprio else [])):
        for name in ("mean", "std"):
            option = f"--{prefix}{name}"
            about = f"{name} of each number of one raw {what}, without data"
            parser.add_argument(option, type=float, nargs="+", default=(), help=about)


def origin_of(args: argparse.Namespace) -> Origin:
    """What the options say."""

    def numbers(mean: str, std: str) -> Numbers | None:
        given = tuple(getattr(args, mean, ())), tuple(getattr(args, std, ()))
        return Numbers(*given) if any(given) else None

    return Origin(
        args.data, numbers("mean", "std"), numbers("proprio_mean", "proprio_std"), args.bound
    )


def convert_frozen(doc: str | None, files: tuple[str, str], convert: Callable[..., Path]) -> int:
    """The whole script of a model on a frozen DINOv2: parse, convert, say where it is.

    Args:
        doc: the script's own text, for --help.
        files: what checkpoint and settings are called in the release.
        convert: (checkpoint, settings, out, origin=, encoder_weights=) to the artefact's folder.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help=files[0])
    parser.add_argument("settings", help=files[1])
    parser.add_argument("out", help="folder of the artefact")
    parser.add_argument("--encoder-weights", default="hub", help="hub, or a .safetensors file")
    add_origin(parser, proprio=True)
    args = parser.parse_args()
    places = args.checkpoint, args.settings, args.out
    options = {"origin": origin_of(args), "encoder_weights": args.encoder_weights}
    return report(lambda: convert(*places, **options))


def report(convert: Callable[[], Path]) -> int:
    """Run a conversion and say where the artefact is, or what is wrong; returns the exit status."""
    try:
        out = convert()
    except (WmError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(out)
    return 0
