"""`wm convert` says what it wrote and where the card of it lies."""

from __future__ import annotations

import json

import pytest

from wm_toolkit import catalog
from wm_toolkit.cli.main import main

SAMPLE = str(catalog.root("datasets") / "samples/native/walks.h5")


@pytest.mark.parametrize(
    ("target", "card"), [("walks.h5", "walks.card.md"), ("me/walks-v0", "me/walks-v0/README.md")]
)
def test_it_says_where_the_card_lies(target, card, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    path = str(tmp_path / target)
    assert main(["convert", SAMPLE, path]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"wrote 2 episodes to {path}")
    assert second == f"its card lies at {tmp_path / card}"
    assert (tmp_path / card).read_text().startswith("# ")


def test_it_says_so_as_json_too(tmp_path, capsys):
    assert main(["convert", SAMPLE, str(tmp_path / "copy.h5"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["card"] == str(tmp_path / "copy.card.md")
    assert said["episodes"] == 2
