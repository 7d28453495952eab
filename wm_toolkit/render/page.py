"""One self-contained HTML page, put together from small pieces. Each piece returns HTML as a string.

Nothing is loaded from anywhere: styles are inline, charts are SVG, pictures are data addresses, and
there are no scripts.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from html import escape
from typing import Any, Literal

from wm_toolkit.render.plots import STYLE as CHART_STYLE

PAGE_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--back:#f6f8fb;--ink:#0f172a;--soft:#475569;
--rule:#e2e8f0;--accent:#2563eb;--good:#15803d;--goodback:#dcfce7;--bad:#b91c1c;--badback:#fee2e2}
@media(prefers-color-scheme:dark){:root{--paper:#111a2b;--back:#0a111e;--ink:#e2e8f0;--soft:#94a3b8;
--rule:#253247;--accent:#60a5fa;--good:#4ade80;--goodback:#12351f;--bad:#f87171;--badback:#3d1717}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--ink);
font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{max-width:1060px;margin:0 auto;padding:40px 24px 64px}
header h1{margin:0 0 6px;font-size:29px;line-height:1.2;letter-spacing:-.02em}
header p{margin:0;color:var(--soft);max-width:72ch}
section{background:var(--paper);border:1px solid var(--rule);border-radius:12px;
padding:22px 26px 24px;margin-top:22px}
h2{margin:0 0 4px;font-size:18px;letter-spacing:-.01em}
.note{margin:0 0 14px;color:var(--soft);font-size:13.5px;max-width:86ch}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:14px;margin-top:26px}
.card{background:var(--paper);border:1px solid var(--rule);border-radius:12px;padding:14px 18px}
.card b{display:block;font-size:27px;line-height:1.25;letter-spacing:-.02em;font-weight:650;
font-variant-numeric:tabular-nums}
.card span{color:var(--soft);font-size:13px}.card:first-child b{color:var(--accent)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:8px 10px;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}
th:first-child,td:first-child{text-align:left}
th{font-size:12.5px;font-weight:600;color:var(--soft)}
tbody tr:last-child td{border-bottom:none}tbody tr:first-child{font-weight:600}
.scroll{overflow-x:auto;margin-bottom:18px}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(420px,100%),1fr));gap:22px 30px;
align-items:start}
figure{margin:0}figcaption{color:var(--soft);font-size:13px;margin-top:6px}
img{image-rendering:pixelated;max-width:100%;border-radius:4px}
.film{display:flex;flex-direction:column;gap:10px}.film img{display:block}
.row{display:flex;align-items:center;gap:14px;overflow-x:auto}
.mark{flex:none;width:92px;text-align:center;font-size:12.5px;font-weight:600;border-radius:99px;
padding:2px 0}
.good{color:var(--good);background:var(--goodback)}.bad{color:var(--bad);background:var(--badback)}
details{margin-top:10px}summary{cursor:pointer;font-weight:600}
pre{overflow-x:auto;background:var(--back);border:1px solid var(--rule);border-radius:8px;
padding:14px;font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
footer{margin-top:26px;color:var(--soft);font-size:13px;text-align:center}
@media print{body{background:#fff}section,.card{break-inside:avoid}}
"""


def report_page(title: str, lead: str, *pieces: str, footer: str = "") -> str:
    """A whole HTML document.

    Args:
        title: heading and window title.
        lead: one or two sentences under it.
        pieces: HTML from the functions below, in reading order.
        footer: a last line.
    """
    style = (PAGE_STYLE + CHART_STYLE).strip()
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n<body><main>"
        f"<header><h1>{escape(title)}</h1><p>{escape(lead)}</p></header>\n"
        + "\n".join(piece for piece in pieces if piece)
        + f"\n<footer>{escape(footer)}</footer></main></body></html>\n"
    )


def section(title: str, *pieces: str, note: str = "") -> str:
    """A titled block; empty if all its pieces are."""
    if not any(pieces):
        return ""
    said = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{said}{''.join(pieces)}</section>"


def cards(facts: Sequence[tuple[str, str]]) -> str:
    """The few numbers to see first: pairs of (value, what it is)."""
    shown = (
        f'<div class="card"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for value, name in facts
    )
    return f'<div class="cards">{"".join(shown)}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text; the first column names the rows, the first row stands out."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def charts(*figures: str) -> str:
    """Charts side by side, as many as fit; empty ones are left out."""
    shown = "".join(f"<figure>{figure}</figure>" for figure in figures if figure)
    return f'<div class="charts">{shown}</div>' if shown else ""


def image(data: bytes, kind: Literal["png", "gif"], alt: str, caption: str = "") -> str:
    """A picture inside the page.

    Args:
        data: the encoded file.
        kind: its format.
        alt: what it shows, for those who cannot see it.
        caption: a line below.
    """
    coded = base64.b64encode(data).decode("ascii")
    said = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    source = f"data:image/{kind};base64,{coded}"
    return f'<figure><img src="{source}" alt="{escape(alt)}">{said}</figure>'


def film(rows: Sequence[tuple[bytes, str, bool | None]]) -> str:
    """Strips below each other, each beside its mark.

    Args:
        rows: (PNG, what the mark says, good or bad or neither).
    """
    colour = {True: " good", False: " bad", None: ""}
    shown = "".join(
        f'<div class="row"><span class="mark{colour[good]}">{escape(said)}</span>'
        f"{image(data, 'png', f'film strip: {said}')}</div>"
        for data, said, good in rows
    )
    return f'<div class="film">{shown}</div>' if shown else ""


def details(summary: str, content: Any) -> str:
    """A block that opens on a click: text as it is, anything else as JSON."""
    shown = content if isinstance(content, str) else json.dumps(content, indent=2, default=str)
    return (
        f"<details><summary>{escape(summary)}</summary><pre>{escape(shown)}</pre></details>"
        if content
        else ""
    )
