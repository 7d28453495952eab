"""Prepare DINO-WM's Wall: python datasets/prepare/wall_single.py SOURCE [TARGET]."""

import sys

from release import main

if __name__ == "__main__":
    sys.exit(main("wall_single"))
