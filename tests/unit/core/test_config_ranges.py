"""Numbers of a config out of range are refused by name, value and range."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest

from wm_toolkit.config import check_ranges
from wm_toolkit.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Some:
    value: float | None


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("[0, 1]", (0, 0.5, 1, None), (-1e-9, 1.001, math.nan)),
        ("(0, 1)", (1e-9, 0.999, None), (0, 1, math.nan)),
        ("[1, inf)", (1, 10**9, None), (0, -5, math.inf, math.nan)),
        ("(0, 2]", (1e-9, 2), (0, 2.1)),
    ],
)
def test_a_bound_belongs_to_an_interval_where_its_bracket_is_square(interval, inside, outside):
    for value in inside:
        check_ranges(Some(value), value=interval)
    for value in outside:
        said = re.escape(f"Some.value is {value}, expected in {interval}")
        with pytest.raises(ConfigError, match=said):
            check_ranges(Some(value), value=interval)
