"""Prepare LeWorldModel's Reacher: python datasets/prepare/lewm_reacher.py SOURCE [TARGET]."""

import sys

from release import main

if __name__ == "__main__":
    sys.exit(main("lewm_reacher"))
