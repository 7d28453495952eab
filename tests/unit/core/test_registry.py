"""A registry is filled by importing a package, and says so honestly when that fails."""

from __future__ import annotations

import sys

import pytest

from wm_toolkit.errors import ConfigError, UnknownNameError
from wm_toolkit.registry import Registry

GOOD = """
import {package}
{package}.THINGS.register("good", object())
"""
LOOKS_UP = """
import {package}
assert "nothing" not in {package}.THINGS
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of plug-ins on the path; yields its folder and its registry."""
    folder = tmp_path / "plugins_here"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    things: Registry[object] = Registry("thing", "plugins_here")
    import plugins_here

    plugins_here.THINGS = things
    yield folder, things
    for name in [name for name in sys.modules if name.partition(".")[0] == "plugins_here"]:
        del sys.modules[name]


def test_a_package_that_fails_to_import_is_tried_again_at_the_next_look_up(package):
    folder, things = package
    (folder / "a_good.py").write_text(GOOD.format(package="plugins_here"))
    (folder / "b_broken.py").write_text("import there_is_no_such_package_here")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="there_is_no_such_package_here"):
            things.names()
    (folder / "b_broken.py").unlink()
    assert things.names() == ["good"]


def test_a_plug_in_may_look_names_up_while_it_is_imported(package):
    folder, things = package
    (folder / "a.py").write_text(LOOKS_UP.format(package="plugins_here"))
    (folder / "b.py").write_text(GOOD.format(package="plugins_here"))
    assert things.names() == ["good"]
    with pytest.raises(UnknownNameError, match=r"no thing named 'goood'\. Did you mean 'good'"):
        things["goood"]


def test_two_modules_cannot_take_one_name(package):
    _, things = package
    things.register("one", test_a_plug_in_may_look_names_up_while_it_is_imported)
    with pytest.raises(ConfigError, match="two things are named 'one'"):
        things.register("one", pytest.fixture)
