"""Public checkers: does a model, planner, agent or source keep its contract?"""

from wm_toolkit.testing.check_agent import check_agent
from wm_toolkit.testing.check_planner import check_planner
from wm_toolkit.testing.check_source import check_source
from wm_toolkit.testing.check_world_model import check_world_model
from wm_toolkit.testing.checks import CheckError

__all__ = ["CheckError", "check_agent", "check_planner", "check_source", "check_world_model"]
