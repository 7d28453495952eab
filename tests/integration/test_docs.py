"""What docs/*.md shows is what happens: its Python prints what it says, its commands run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from markdown_blocks import blocks, shell_lines

from wm_toolkit.cli.main import main
from wm_toolkit.envs.headless import offscreen_backend, prepare_headless

prepare_headless()
DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(page.name for page in DOCS.glob("*.md"))
DRAWN = {"environments.md"}
"""Pages whose environments draw with OpenGL."""


@pytest.fixture(params=PAGES)
def page(request, tmp_path, monkeypatch):
    """The text of a page; what it writes lands in an empty folder."""
    if request.param in DRAWN and offscreen_backend() is None:
        pytest.skip("neither EGL nor OSMesa is installed")
    monkeypatch.chdir(tmp_path)
    return (DOCS / request.param).read_text(encoding="utf-8")


def test_the_python_of_a_page_runs_and_prints_what_it_says(page, capsys):
    names: dict[str, object] = {}
    for code in blocks(page, "python"):
        exec(compile(code, "docs", "exec"), names)
        shown = re.findall(r"^print\(.*\)  # (.+)$", code, re.MULTILINE)
        assert shown, f"this block shows no result:\n{code}"
        assert capsys.readouterr().out.splitlines() == shown


def test_the_commands_of_a_page_run(page, capsys):
    for command, shown in shell_lines(page):
        program, *words = shlex.split(command)
        assert program == "wm"
        code = main(words)
        said = capsys.readouterr()
        assert code == 0, f"{command}\n{said.err}"
        for line in shown:
            assert line == "..." or line in said.out.splitlines(), f"{command} printed\n{said.out}"


def test_there_is_a_page():
    assert "environments.md" in PAGES
