"""The table of docs/dreamer.md that repeats papers: every command names what there is, and its model fits."""

from __future__ import annotations

import re
import shlex
import tomllib
import warnings
from contextlib import closing
from pathlib import Path

import pytest
import torch

from wm_toolkit.envs.headless import offscreen_backend, prepare_headless
from wm_toolkit.envs.make import make_vec
from wm_toolkit.registry import build, recipe_config
from wm_toolkit.spaces import Spaces

prepare_headless()
ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "dreamer.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| .* \| `(wm train [^`]+)`.* \| `\[(.+)\]` \|$", TEXT, re.MULTILINE)


def test_the_table_has_all_five_of_the_family():
    recipes = {shlex.split(command)[2].partition(".")[0] for command, _ in ROWS}
    assert recipes == {"world_models", "planet", "dreamer_v1", "dreamer_v2", "dreamer_v3"}


@pytest.mark.parametrize(("command", "extras"), ROWS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_papers_command_builds_its_model_for_its_environment(command, extras):
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras.split(",")) <= known.keys()
    if "dmc" in extras and offscreen_backend() is None:
        pytest.skip("neither EGL nor OSMesa is installed")
    _, _, name, option, env = shlex.split(command)
    assert option == "--env"
    config = recipe_config(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with closing(make_vec(env, 1, **config.env_options)) as envs:
            spaces = Spaces.of(envs)
    with torch.device("meta"):
        agent = build(name, spaces, config)
    assert sum(p.numel() for p in agent.model.parameters()) > 500_000
    assert agent.spaces == spaces
