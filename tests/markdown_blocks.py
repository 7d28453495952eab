"""Code blocks of Markdown files, for the tests that run them."""

from __future__ import annotations

import re


def blocks(text: str, *languages: str) -> list[str]:
    """The code blocks in these languages, in order."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [code for language, code in found if language in languages]


def shell_lines(text: str) -> list[tuple[str, list[str]]]:
    """Every command of the shell blocks with the output lines shown below it."""
    lines: list[tuple[str, list[str]]] = []
    for code in blocks(text, "bash"):
        lines += [(part, []) for line in code.splitlines() for part in line.split(" && ")]
    for code in blocks(text, "console"):
        for line in code.splitlines():
            if line.startswith("$ "):
                lines.append((line[2:], []))
            else:
                lines[-1][1].append(line)
    return lines
