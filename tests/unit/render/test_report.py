"""The report page holds everything itself and says what the run's numbers say."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest

from wm_toolkit.render import page, report
from wm_toolkit.render.report import GoalEpisode, RunReport, goal_report
from wm_toolkit.render.rollout import HorizonError

VOID = {"meta", "img", "link", "br"}


class Balance(HTMLParser):
    """Fails on a tag that is closed in the wrong order, collects what is shown."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.said = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.said.append(data)


def result(share, **changes):
    row = {
        "success_rate": share,
        "interval": [share - 0.1, min(1.0, share + 0.05)],
        "return_mean": None,
        "steps_to_goal": 17.25,
        "start_solved_rate": 0.08,
        "decision_ms": 12.5,
        "episodes": 50,
        "seed": 3,
    }
    return {**row, **changes}


def example():
    film = np.zeros((5, 8, 8, 3), np.uint8)
    film[:, 2, 3] = (255, 0, 0)
    return RunReport(
        title="Rooms <3",
        lead="A & B",
        results={"model": result(0.92), "random": result(0.33, steps_to_goal=None)},
        curves={"prediction": [(0, 1.0), (10, 0.1), (20, 0.01)], "alone": [(0, 1.0)]},
        horizon=HorizonError((0.01, 0.02), (0.5, 1.0)),
        dream=film[0],
        episodes=[GoalEpisode(film, film[0], True), GoalEpisode(film, film[0], False)],
        record={"seed": 3, "versions": {"wm_toolkit": "9.9"}},
        config={"train": {"updates": 100}},
    )


def test_the_page_is_balanced_and_loads_nothing_from_anywhere():
    html = goal_report(example())
    parser = Balance()
    parser.feed(html)
    assert parser.open == []
    assert not {"script", "link", "iframe"} & {tag for tag, _ in parser.tags}
    sources = [a["src"] for _, a in parser.tags if "src" in a]
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    addresses = set(re.findall(r"https?://[^\"'\s<]+", html))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a namespace, never fetched
    assert "url(" not in html
    assert "@import" not in html


def test_every_chart_in_the_page_is_well_formed_svg():
    charts = re.findall(r"<svg.*?</svg>", goal_report(example()), re.DOTALL)
    titles = [ET.fromstring(c).find("{http://www.w3.org/2000/svg}title").text for c in charts]
    assert titles == [
        "Goals reached, with 95 % interval",
        "prediction",
        "Open-loop prediction error",
    ]


def test_the_page_says_the_numbers_of_the_run():
    parser = Balance()
    parser.feed(goal_report(example()))
    said = parser.said
    for cell in ("92 %", "82 - 97 %", "17.2", "8 %", "12.50", "50", "Rooms <3", "A & B"):
        assert cell in said
    assert "reached" in said
    assert "not reached" in said
    assert "2 %" in said  # 0.02 of copy-last's 1.0
    assert any('"updates": 100' in text for text in said)
    assert "wm_toolkit 9.9" in said


def test_pictures_are_described():
    parser = Balance()
    parser.feed(goal_report(example()))
    images = [attributes for tag, attributes in parser.tags if tag == "img"]
    assert len(images) == 4  # the dream, two strips, the animation
    assert all(attributes["alt"] for attributes in images)


def test_a_run_without_anything_still_gives_a_page():
    parser = Balance()
    parser.feed(goal_report(RunReport("empty", "nothing yet", {})))
    assert parser.open == []
    assert [tag for tag, _ in parser.tags].count("section") == 0


def test_a_goal_strip_frames_the_goal_by_its_outcome():
    film = np.full((3, 4, 4, 3), 9, np.uint8)
    for success, colour in ((True, report.GOOD), (False, report.BAD)):
        strip = report.goal_strip(GoalEpisode(film, film[0], success))
        assert strip.shape == (6, 3 * 6 + 2 * 3 + 12 + 6, 3)
        assert (strip[0, -6:] == colour).all()
        assert (strip[0, :6] == report.GREY).all()


def test_the_animation_shows_each_episode_beside_its_goal():
    film = np.stack([np.full((4, 4, 3), t, np.uint8) for t in range(3)])
    goal = np.full((4, 4, 3), 200, np.uint8)
    frames = report.goal_film([GoalEpisode(film, goal, True)], columns=1)
    inside = frames[:, 6:10, 6:-6]
    assert inside[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert (inside[:, :, -4:] == 200).all()


@pytest.mark.parametrize(
    ("share", "said"), [(0.815, "81.5 %"), (1.0, "100 %"), (None, "-"), (float("nan"), "-")]
)
def test_shares_are_written_as_percent(share, said):
    assert report.percent(share) == said


def test_a_section_without_content_is_left_out():
    assert page.section("Title", "", "") == ""
    assert page.charts("", "") == ""


def test_the_share_of_goals_reached_is_drawn_over_the_steps_of_every_policy():
    curves = {"model": [0.1, 0.5, 1.0], "random": [0.1, 0.1, 0.2]}
    rows = {name: result(0.5, success_by_step=curve) for name, curve in curves.items()}
    chart = report.success_chart(rows)
    assert chart.count("<path") == 2
    assert "Goals reached by environment step" in chart
    assert report.success_chart({"old": result(0.5)}) == ""
    html = goal_report(RunReport("t", "l", results=rows))
    assert "Goals reached by environment step" in html
