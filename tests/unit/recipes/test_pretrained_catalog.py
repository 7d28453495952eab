"""Every name in pretrained/ either ships or says how to get it."""

from __future__ import annotations

import re

import pytest

from wm_toolkit import Agent, catalog
from wm_toolkit.errors import CheckpointError

ENTRIES = catalog.entries("pretrained")


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_ships_or_says_how_to_get_it(name):
    entry = ENTRIES[name]
    assert entry.summary
    assert entry.licence
    assert entry.source
    assert (entry.path is None) != ("prepare" not in entry.extra)
    assert entry.path is None or (entry.path / "config.json").is_file()


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.path is None])
def test_a_name_that_does_not_ship_is_answered_with_its_script_and_card(name):
    entry = ENTRIES[name]
    assert (catalog.root("pretrained") / entry.extra["card"]).is_file()
    script = re.search(r"pretrained/(convert/\w+\.py)", entry.extra["prepare"])
    assert script
    assert (catalog.root("pretrained") / script[1]).is_file()
    with pytest.raises(CheckpointError, match=f"'{name}' does not ship .*{script[1]}"):
        Agent.from_pretrained(name)
