"""Prepare any LeRobot folder of version 2.0 or 2.1: python datasets/prepare/lerobot_v2.py SOURCE [TARGET]."""

import sys

from release import main

if __name__ == "__main__":
    sys.exit(main("lerobot_v2"))
