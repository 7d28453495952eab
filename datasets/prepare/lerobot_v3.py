"""Prepare any LeRobot folder of version 3.0: python datasets/prepare/lerobot_v3.py SOURCE [TARGET]."""

import sys

from release import main

if __name__ == "__main__":
    sys.exit(main("lerobot_v3"))
