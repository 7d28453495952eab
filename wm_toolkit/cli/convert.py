"""`wm convert`: a data set into another format."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from wm_toolkit.cli import output
from wm_toolkit.cli.train import pairs
from wm_toolkit.errors import ConfigError

if TYPE_CHECKING:
    import torch


@dataclasses.dataclass(frozen=True)
class Args:
    """Turn a data set into another format; an interrupted conversion goes on where it stopped.

    With --encode the features of a frozen encoder are computed once and stored beside the frames;
    training then reads them instead.

    For example: `wm convert D4RL/pointmaze/umaze-v2 umaze.h5`, or `wm convert walks.h5
    me/walks-v0 --format minari-arrow`, or `wm convert pusht.h5 features.h5 --encode dinov2_small
    --encode-set image_size=196 normalisation=half`.

    Attributes:
        source: a native .h5 file, a catalog name, a released file or folder, or a Minari folder or id
            (downloaded if not here).
        target: data.h5 for the native format, ns/name-v0 for Minari.
        format: hdf5, minari or minari-arrow; by default what the target looks like.
        encode: store features of an encoder (`wm list encoders`) beside the frames.
        encode_set: its options as name=value: image_size, normalisation, block, norm, resample, weights
            (hub, random or a .safetensors file); and dtype=float16 or float32 of what is stored.
        encode_key: the observation with the frames.
        drop_frames: leave the frames out once they are encoded. Halves the file; no decoder, film
            strips or `wm plan` from recorded frames afterwards.
        device: where the encoder runs; by default an accelerator if there is one.
        json: print one JSON object: path, format, episodes, card.
    """

    source: Annotated[str, tyro.conf.Positional]
    target: Annotated[str, tyro.conf.Positional]
    format: str = ""
    encode: str = ""
    encode_set: tuple[str, ...] = ()
    encode_key: str = "image"
    drop_frames: bool = False
    device: str = ""
    json: bool = False


def run(args: Args) -> int:
    """Convert with a progress bar on stderr."""
    from wm_toolkit.data.card import card_path
    from wm_toolkit.data.formats import find_format, open_reader
    from wm_toolkit.training.jobs import prepare_data

    convert = conversion(args)
    prepare_data(args.source)
    what = "encoding" if args.encode else "converting"
    with output.progress(f"{what} {args.source}") as advance:
        path = convert(args.source, args.target, format=args.format or None, progress=advance)
    found = find_format(path)
    said = {
        "path": str(path),
        "format": args.format or (found[0].name if found else ""),
        "episodes": len(open_reader(path)),
        "card": str(card_path(path)),
    }
    if args.json:
        output.emit(said)
    else:
        print(f"wrote {said['episodes']} episodes to {path} ({said['format']})")
        print(f"its card lies at {said['card']}")
    return 0


def conversion(args: Args) -> Callable[..., Path]:
    """What turns source into target: a plain copy, or one with features.

    Raises:
        ConfigError: for an unknown option or device, or options of an encoder without one.
    """
    if not args.encode:
        from wm_toolkit.data.convert import convert

        if args.encode_set or args.drop_frames:
            raise ConfigError("--encode-set and --drop-frames need --encode, such as dinov2_small")
        return convert
    from wm_toolkit.data.features import encode_features
    from wm_toolkit.encoders.named import make_encoder

    options = pairs(args.encode_set)
    own = {"dtype": options.pop("dtype")} if "dtype" in options else {}
    encoder = make_encoder(args.encode, **options).to(device_of(args.device))

    def encode(source: str, target: str, **rest: Any) -> Path:
        rest |= {"key": args.encode_key, "drop_frames": args.drop_frames, **own}
        return encode_features(source, encoder, target, **rest)

    return encode


def device_of(name: str) -> torch.device:
    """The device of a name; "" is the best there is.

    Raises:
        ConfigError: if there is no such device.
    """
    import torch

    best = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    try:
        device = torch.device(name) if name else best or torch.device("cpu")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"there is no device {name!r} here: {error}") from error
    return device
