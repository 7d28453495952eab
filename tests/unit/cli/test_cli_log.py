"""What the library logs is said once, whatever a package does to the root's handlers."""

from __future__ import annotations

import logging

import pytest

from wm_toolkit.cli.output import log_to_stderr


def test_a_handler_of_the_root_does_not_say_it_again(capsys: pytest.CaptureFixture) -> None:
    other = logging.StreamHandler()
    logging.getLogger().addHandler(other)
    try:
        log_to_stderr()
        logging.getLogger("wm_toolkit.anything").info("the replay is full")
    finally:
        logging.getLogger().removeHandler(other)
    assert capsys.readouterr().err.splitlines() == ["the replay is full"]
