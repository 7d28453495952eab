"""The card states the protocol and shows the rows; older results leave dashes."""

import dataclasses
import json
from pathlib import Path

from wm_toolkit.agents.card import (
    HEAD,
    RETURN_HEAD,
    evaluation_text,
    markdown_table,
    protocol_text,
    result_cells,
    result_head,
    training_text,
    with_evaluation,
)
from wm_toolkit.training.config import EvaluationConfig, ReturnConfig

PROTOCOL = {
    "episodes": 50,
    "goal_offset": 25,
    "budget": 50,
    "goals": "dataset",
    "holdout": 0.1,
    "split_seed": 3,
    "seed": 42,
    "frame_skip": 5,
    "env": "wm_toolkit/TwoRooms-v0",
}
ROW = {
    "success_rate": 0.92,
    "interval": [0.8116, 0.9685],
    "return_mean": 1.5,
    "steps_to_goal": 12.34,
    "start_solved_rate": 0.08,
    "decision_ms": 30.0,
    "episodes": 50,
    "seed": 42,
    "success_rate_at_replan": 0.9,
    "decision_cpu_ms": 29.5,
}


def test_a_row_has_a_cell_for_every_column():
    cells = dict(zip(HEAD, result_cells("mine", ROW), strict=True))
    assert cells["policy"] == "mine"
    assert cells["success"] == "92 %"
    assert cells["95 % interval"] == "81 - 97 %"
    assert cells["success at replans"] == "90 %"
    assert cells["steps to goal"] == "12.3"
    assert cells["CPU ms"] == "29.50"
    assert (cells["episodes"], cells["seed"]) == ("50", "42")


def test_what_an_older_result_does_not_know_is_a_dash():
    old = {"success_rate": 0.5, "episodes": 4.0, "seed": 43.0}
    assert result_cells("old", old) == ["old", "50 %", *["-"] * 7, "4", "43"]


def test_the_protocol_is_said_in_words():
    said = protocol_text(PROTOCOL)
    for part in (
        "goals from held-out episodes 25 steps ahead",
        "budget 50 steps, 5 per decision",
        "50 episodes, seed 42",
        "10 % of the recorded episodes are held out (split seed 3)",
        "after every environment step",
        "only when a plan has been executed",
    ):
        assert part in said
    other = {**PROTOCOL, "goals": "env", "goal_options": {"goal_room": "opposite"}}
    assert "drawn by the environment with {'goal_room': 'opposite'}" in protocol_text(other)
    assert "25 random actions lead" in protocol_text({**PROTOCOL, "goals": "random_action"})
    assert "that the data's release names. Success" in protocol_text(
        {**PROTOCOL, "split": "released"}
    )
    named = protocol_text({**PROTOCOL, "published": "lewm.tworoom"})
    assert named.startswith("Protocol (published as lewm.tworoom;")


def test_the_table_has_the_agent_and_every_baseline():
    info = {
        "evaluation": PROTOCOL,
        "results": ROW,
        "baselines": {"random": {**ROW, "success_rate": 0.3}, "oracle": ROW},
    }
    text = evaluation_text(info, "lewm")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert [row.split("|")[1].strip() for row in rows] == [
        "policy",
        "---",
        "lewm",
        "random",
        "oracle",
    ]
    assert "The oracle row is the same search in the true dynamics." in text
    alone = evaluation_text({**info, "baselines": {"random": ROW}})
    assert "The random row is a uniformly random policy." in alone
    assert "There is no oracle row (the same search in the true dynamics)." in alone


def test_nothing_is_claimed_that_was_not_measured():
    assert evaluation_text({}) == ""
    assert "\n\nNot measured yet. Protocol: " in evaluation_text({"evaluation": PROTOCOL})
    assert training_text({"training": {"updates": 5, "seed": 0}}) == ""


def test_a_new_result_takes_the_place_of_the_old_one_and_of_nothing_else():
    old = evaluation_text({"evaluation": PROTOCOL})
    new = evaluation_text({"evaluation": PROTOCOL, "results": ROW})
    card = with_evaluation("# mine\n\nLicence: MIT.\n", old)
    assert card.index("Licence: MIT.") < card.index("## Evaluation") < card.index("Not measured")
    card += "\n## Data\n\nWalks.\n"
    again = with_evaluation(card, new)
    assert "Not measured" not in again
    assert again == f"# mine\n\nLicence: MIT.\n\n{new}\n## Data\n\nWalks.\n"
    assert with_evaluation(again, new) == again


def test_a_markdown_table_is_one():
    assert markdown_table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"


def test_every_field_of_an_evaluation_config_that_decides_a_number_is_in_the_words():
    base = dataclasses.asdict(EvaluationConfig(frame_skip=5, env="A-v0"))
    changed = {
        "episodes": 51,
        "goal_offset": 26,
        "budget": 55,
        "goals": "env",
        "holdout": 0.2,
        "split_seed": 9,
        "seed": 43,
        "frame_skip": 10,
        "env": "B-v0",
        "goal_options": {"x": 1},
        "env_options": {"image_size": 64},
        "group": 10,
        "published": "lewm.cube",
    }
    for name, value in changed.items():
        assert protocol_text(base) != protocol_text({**base, name: value}), name


SHIPPED = Path(__file__).parents[3] / "pretrained" / "tiny" / "lewm-tworooms"


def test_the_shipped_card_says_all_that_its_artefact_knows_and_nothing_older():
    info = json.loads((SHIPPED / "config.json").read_text(encoding="utf-8"))
    card = (SHIPPED / "README.md").read_text(encoding="utf-8")
    before, _, rest = card.partition("## Evaluation\n")
    assert f"## Evaluation\n{rest}" == evaluation_text(info, info["recipe"])
    assert "|" not in before
    assert set(info["baselines"]) == {"random", "oracle"}
    for words in (
        "goals from held-out episodes 25 steps ahead",
        "budget 50 steps",
        "100 episodes, seed 42",
        "95 % interval",
        "solved at start",
        "| random |",
        "| oracle |",
        "after every environment step",
        "success at replans",
        "steps to goal",
        "ms / decision",
    ):
        assert words in rest


RETURNS = dataclasses.asdict(ReturnConfig(episodes=20, env="CartPole-v1", group=5))
RETURN_ROW = {
    "return_mean": 412.25,
    "interval": [390.5, 434.0],
    "return_std": 46.5,
    "length_mean": 412.25,
    "decision_ms": 1.234,
    "decision_cpu_ms": 1.2,
    "episodes": 20,
    "seed": 42,
}


def test_returns_have_columns_of_their_own():
    assert result_head(RETURNS) == RETURN_HEAD
    assert result_head(PROTOCOL) == HEAD
    cells = dict(zip(RETURN_HEAD, result_cells("mine", RETURN_ROW), strict=True))
    assert (cells["return"], cells["95 % interval"]) == ("412.2", "390.5 to 434.0")
    assert (cells["length"], cells["ms / decision"]) == ("412.2", "1.23")
    assert result_cells("once", {**RETURN_ROW, "interval": None})[2] == "-"


def test_the_card_of_returns_states_protocol_and_random_row_and_misses_no_oracle():
    info = {"evaluation": RETURNS, "results": RETURN_ROW, "baselines": {"random": RETURN_ROW}}
    text = evaluation_text(info, "dreamer")
    assert "CartPole-v1, 20 whole episodes in groups of 5, seed 42" in text
    assert "cut after 100,000 steps" in text
    assert "The random row is a uniformly random policy." in text
    assert "oracle" not in text
    assert "decides every 2 steps" in protocol_text({**RETURNS, "frame_skip": 2})
    repeated = protocol_text({**RETURNS, "env_options": {"action_repeat": 2}})
    assert "with {'action_repeat': 2}" in repeated


def test_the_card_says_what_was_recorded_and_what_was_experienced():
    training = {"updates": 1500, "seed": 3}
    seen = {"env": "CartPole-v1", "env_options": {"action_repeat": 2}, "steps": 20_000}
    data = {"name": "recorded", "episodes": 7, "checksum": "0123456789abcdef"}
    text = training_text({"training": training, "experience": seen, "data": data})
    assert text == (
        "Trained for 1,500 updates on recorded (7 episodes, checksum 0123456789ab) and 20,000 "
        "environment steps in CartPole-v1 with {'action_repeat': 2}, seed 3.\n"
    )
