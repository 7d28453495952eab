"""Tiny films and data sets in the layouts in which they are released, written for tests and samples.

Films are lossless unless another codec is asked for. The content moves smoothly, so that a film has key
frames and differences as real ones do.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

SIZE = (32, 48)
LOSSLESS = {"qp": "0"}


def moving_frames(count: int, seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """uint8 [count, H, W, 3]: a bright square wanders over a dark picture; no two frames are equal."""
    rng = np.random.default_rng(seed)
    height, width = size
    ground = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
    frames = np.repeat(ground[None], count, 0)
    for i, frame in enumerate(frames):
        row, column = (3 * i + seed) % (height - 8), (5 * i + 2 * seed) % (width - 8)
        frame[row : row + 8, column : column + 8] = (200, 255 - i % 200, 55 + i % 200)
    return frames


def write_film(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = "libx264rgb",
    options: Mapping[str, str] | None = None,
    fps: int = 10,
    gop: int = 12,
    times: Sequence[int] | None = None,
    container: Mapping[str, str] | None = None,
) -> Path:
    """A film of frames [n, H, W, 3]; `times` are milliseconds, for a film of irregular ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=dict(container or {})) as out:
        stream = out.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24" if codec == "libx264rgb" else "yuv420p"
        stream.gop_size = gop
        defaults = LOSSLESS if codec == "libx264rgb" else {}
        stream.options = {**defaults, **(options or {})}
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def decoded(path: Path) -> np.ndarray:
    """uint8 [n, H, W, 3]: what PyAV decodes from the beginning to the end."""
    with av.open(str(path)) as film:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)])


# -- DINO-WM folders -----------------------------------------------------------------------------
def write_point_maze(
    folder: Path,
    *,
    lengths: Sequence[int] = (4, 6, 2),
    rows: int = 6,
    stored_lengths: str | None = "tensor",
    channels: str = "last",
    dtype: torch.dtype = torch.uint8,
    size: tuple[int, int] = SIZE,
) -> Path:
    """`point_maze`, and with `stored_lengths=None`, `channels="first"` what `wall_single` looks like.

    Args:
        folder: made here.
        lengths: rows of every episode.
        rows: T of the padded tensors.
        stored_lengths: "tensor", "pickle" or None.
        channels: of the frames, "first" or "last".
        dtype: of the frames.
        size: of the frames.
    """
    rng = np.random.default_rng(0)
    (folder / "obses").mkdir(parents=True)
    save_tensor(folder / "states.pth", rng.normal(size=(len(lengths), rows, 4)))
    save_tensor(folder / "actions.pth", rng.uniform(-1, 1, (len(lengths), rows, 2)))
    save_lengths(folder, lengths, stored_lengths)
    for i in range(len(lengths)):
        frames = torch.from_numpy(moving_frames(rows, i, size)).to(dtype)
        frames = frames if channels == "last" else frames.permute(0, 3, 1, 2).contiguous()
        torch.save(frames, folder / "obses" / f"episode_{i:03d}.pth")
    return folder


def write_wall_single(folder: Path, *, episodes: int = 3, rows: int = 6) -> Path:
    """`wall_single`: frames channel first and float, no lengths, door and wall beside them."""
    write_point_maze(
        folder,
        lengths=[rows] * episodes,
        rows=rows,
        stored_lengths=None,
        channels="first",
        dtype=torch.float32,
    )
    for name in ("door_locations", "wall_locations"):
        values = np.repeat(np.arange(10.0, 10 + episodes)[:, None], rows, 1)
        save_tensor(folder / f"{name}.pth", values)
    return folder


def write_deformable(
    folder: Path,
    *,
    episodes: int = 3,
    rows: int = 5,
    particles: int = 7,
    channels: str = "last",
    stored_lengths: str | None = None,
    lengths: Sequence[int] = (),
) -> Path:
    """`deformable/rope` and `deformable/granular`."""
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True)
    save_tensor(folder / "states.pth", rng.normal(size=(episodes, rows, particles, 4)))
    save_tensor(folder / "actions.pth", rng.uniform(-4, 4, (episodes, rows, 4)))
    save_lengths(folder, lengths, stored_lengths)
    for i in range(episodes):
        frames = torch.from_numpy(moving_frames(rows, i))
        frames = frames if channels == "last" else frames.permute(0, 3, 1, 2).contiguous()
        (folder / f"{i:06d}").mkdir()
        torch.save(frames, folder / f"{i:06d}" / "obses.pth")
    return folder


def write_pusht(
    folder: Path,
    *,
    train: Sequence[int] = (7, 5, 9),
    val: Sequence[int] = (6,),
    film: Mapping[str, Any] | None = None,
    size: tuple[int, int] = SIZE,
) -> Path:
    """`pusht_noise` with its folders `train` and `val`; numbers are the rows of every episode."""
    for split, lengths in (("train", train), ("val", val)):
        if lengths:
            write_pusht_split(folder / split, lengths, film=film, size=size)
    return folder


def write_pusht_split(
    folder: Path,
    lengths: Sequence[int],
    *,
    shapes: Sequence[str] = (),
    filmed: Sequence[int] | None = None,
    film: Mapping[str, Any] | None = None,
    size: tuple[int, int] = SIZE,
) -> Path:
    """One of the folders of `pusht_noise`; all episodes, or those `filmed`, have their film."""
    rng = np.random.default_rng(len(lengths))
    count, longest = len(lengths), max(lengths)
    folder.mkdir(parents=True)
    places = rng.uniform(50, 450, (count, longest, 5))
    save_tensor(folder / "states.pth", places)
    save_tensor(folder / "velocities.pth", rng.normal(0, 70, (count, longest, 2)))
    relative = rng.normal(0, 20, (count, longest, 2))
    save_tensor(folder / "rel_actions.pth", relative)
    save_tensor(folder / "abs_actions.pth", places[..., :2] + relative)
    save_lengths(folder, lengths, "pickle")
    if shapes:
        (folder / "shapes.pkl").write_bytes(pickle.dumps(list(shapes)))
    for i in range(count) if filmed is None else filmed:
        path = folder / "obses" / f"episode_{i:03d}.mp4"
        write_film(path, moving_frames(lengths[i], i, size), **(film or {}))
    return folder


def save_tensor(path: Path, values: np.ndarray) -> None:
    """Floats become float32, as in the releases."""
    single = values.astype(np.float32) if values.dtype == np.float64 else values
    torch.save(torch.from_numpy(np.ascontiguousarray(single)), path)


def save_lengths(folder: Path, lengths: Sequence[int], kind: str | None) -> None:
    """Rows of every episode as "tensor", as "pickle", or not at all."""
    if kind == "tensor":
        torch.save(torch.tensor(list(lengths)), folder / "seq_lengths.pth")
    elif kind == "pickle":
        (folder / "seq_lengths.pkl").write_bytes(pickle.dumps(list(lengths)))


# -- LeRobot -------------------------------------------------------------------------------------
FPS = 10
CAMERA = "observation.images.top"
NUMBERS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
TASKS = ["push the block", "push it back"]


def lerobot_columns(lengths: Sequence[int]) -> dict[str, np.ndarray]:
    """Every numeric column [rows, ...] of a tiny data set, all episodes one after the other."""
    rng = np.random.default_rng(2)
    rows = sum(lengths)
    frame = np.concatenate([np.arange(n) for n in lengths])
    last = np.concatenate([np.arange(n) == n - 1 for n in lengths])
    episode = np.repeat(np.arange(len(lengths)), lengths)
    return {
        "observation.state": rng.normal(size=(rows, 3)).astype(np.float32),
        "action": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "next.reward": rng.normal(size=rows).astype(np.float32),
        "next.done": last,
        "next.success": last & (episode % 2 == 0),
        "timestamp": (frame / FPS).astype(np.float32),
        "frame_index": frame,
        "episode_index": episode,
        "index": np.arange(rows),
        "task_index": episode % 2,
    }


def lerobot_info(
    version: str, lengths: Sequence[int], pictures: Mapping[str, str], columns: Mapping
) -> dict[str, Any]:
    """`meta/info.json`; `pictures` are "video" or "image" by feature."""
    modern = version.startswith("v3")
    chunk = "chunk-{chunk_index:03d}/file-{file_index:03d}"
    older = "chunk-{episode_chunk:03d}"
    film = f"videos/{{video_key}}/{chunk}.mp4"
    films = f"videos/{older}/{{video_key}}/episode_{{episode_index:06d}}.mp4"
    features = {
        name: {"dtype": str(v.dtype), "shape": list(v.shape[1:]) or [1], "names": None}
        for name, v in columns.items()
    }
    channels = ["height", "width", "channels"]
    for name, kind in pictures.items():
        features[name] = {"dtype": kind, "shape": [*SIZE, 3], "names": channels}
    return {
        "codebase_version": version,
        "robot_type": "toy_arm",
        "total_episodes": len(lengths),
        "total_frames": sum(lengths),
        "total_tasks": len(TASKS),
        "chunks_size": 1000,
        "fps": FPS,
        "splits": {"train": f"0:{len(lengths)}"},
        "data_path": f"data/{chunk}.parquet"
        if modern
        else f"data/{older}/episode_{{episode_index:06d}}.parquet",
        "video_path": film if modern else films,
        "features": features,
    }


def write_lerobot_v2(
    folder: Path,
    *,
    lengths: Sequence[int] = (7, 5, 9),
    pictures: Mapping[str, str] | None = None,
    version: str = "v2.1",
    film: Mapping[str, Any] | None = None,
) -> Path:
    """A LeRobot folder with a table and a film for every episode; episode i shows film `seed=i`."""
    pictures = {CAMERA: "video"} if pictures is None else pictures
    columns = lerobot_columns(lengths)
    info = lerobot_info(version, lengths, pictures, columns)
    save_lerobot_meta(folder, info)
    episodes = [
        {"episode_index": i, "tasks": [TASKS[i % 2]], "length": n} for i, n in enumerate(lengths)
    ]
    tasks = [{"task_index": i, "task": task} for i, task in enumerate(TASKS)]
    for name, lines in (("episodes", episodes), ("tasks", tasks)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "meta" / f"{name}.jsonl").write_text(text)
    for i, n in enumerate(lengths):
        own = slice(sum(lengths[:i]), sum(lengths[:i]) + n)
        table = lerobot_table({k: v[own] for k, v in columns.items()}, pictures, [n], i)
        save_table(folder / "data/chunk-000" / f"episode_{i:06d}.parquet", table)
        for shift, name in enumerate(n for n, kind in pictures.items() if kind == "video"):
            path = folder / "videos/chunk-000" / name / f"episode_{i:06d}.mp4"
            write_film(path, moving_frames(n, i + 10 * shift), fps=FPS, **(film or {}))
    return folder


def write_lerobot_v3(
    folder: Path,
    *,
    lengths: Sequence[int] = (7, 5, 9),
    per_file: int = 2,
    pictures: Mapping[str, str] | None = None,
    film: Mapping[str, Any] | None = None,
) -> Path:
    """A LeRobot folder with `per_file` episodes in every table and film."""
    pictures = {CAMERA: "video"} if pictures is None else pictures
    columns = lerobot_columns(lengths)
    save_lerobot_meta(folder, lerobot_info("v3.0", lengths, pictures, columns))
    save_table(
        folder / "meta/tasks.parquet",
        pa.table({"task_index": range(len(TASKS)), "__index_level_0__": TASKS}),
    )
    episodes = []
    for file, first in enumerate(range(0, len(lengths), per_file)):
        held = lengths[first : first + per_file]
        begin = sum(lengths[:first])
        own = slice(begin, begin + sum(held))
        table = lerobot_table({k: v[own] for k, v in columns.items()}, pictures, held, first)
        save_table(folder / "data/chunk-000" / f"file-{file:03d}.parquet", table)
        films = [name for name, kind in pictures.items() if kind == "video"]
        for shift, name in enumerate(films):
            shown = [moving_frames(n, first + i + 10 * shift) for i, n in enumerate(held)]
            path = folder / "videos" / name / "chunk-000" / f"file-{file:03d}.mp4"
            write_film(path, np.concatenate(shown), fps=FPS, **(film or {}))
        for i, n in enumerate(held):
            before = sum(held[:i])
            about = {
                "episode_index": first + i,
                "tasks": [TASKS[(first + i) % 2]],
                "length": n,
                "dataset_from_index": begin + before,
                "dataset_to_index": begin + before + n,
                "data/chunk_index": 0,
                "data/file_index": file,
                "stats/action/mean": [0.0, 0.0],
            }
            for name in films:
                about |= {
                    f"videos/{name}/chunk_index": 0,
                    f"videos/{name}/file_index": file,
                    f"videos/{name}/from_timestamp": before / FPS,
                    f"videos/{name}/to_timestamp": (before + n) / FPS,
                }
            episodes.append(about)
    table = pa.Table.from_pylist(episodes)
    save_table(folder / "meta/episodes/chunk-000/file-000.parquet", table)
    return folder


def lerobot_table(
    columns: Mapping[str, np.ndarray],
    pictures: Mapping[str, str],
    lengths: Sequence[int],
    first: int,
) -> pa.Table:
    """Rows of the episodes from `first` on; pictures of type "image" lie inside as PNG files."""
    found = {
        name: pa.array(list(v), pa.list_(pa.from_numpy_dtype(v.dtype), v.shape[1]))
        if v.ndim > 1
        else pa.array(v)
        for name, v in columns.items()
    }
    for name in (n for n, kind in pictures.items() if kind == "image"):
        cells = []
        for i, n in enumerate(lengths, first):
            cells += [
                {"bytes": png(frame), "path": f"frame_{k:06d}.png"}
                for k, frame in enumerate(moving_frames(n, i))
            ]
        found[name] = pa.array(cells)
    return pa.table(found)


def png(frame: np.ndarray) -> bytes:
    """A picture [H, W, 3] as a PNG file, which is lossless."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    return file.getvalue()


def save_lerobot_meta(folder: Path, info: Mapping[str, Any]) -> None:
    """`meta/info.json`, and a card that names the licence."""
    (folder / "meta").mkdir(parents=True)
    (folder / "meta/info.json").write_text(json.dumps(info, indent=4))
    (folder / "README.md").write_text(
        "---\nlicense: apache-2.0\ntags:\n- LeRobot\n---\n\nA toy arm pushes a block.\n"
    )


def save_table(path: Path, table: pa.Table) -> None:
    """A parquet file in small pieces, which need not end where episodes do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=4)
