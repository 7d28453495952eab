"""Prepare LeWorldModel's TwoRoom: python datasets/prepare/lewm_tworooms.py SOURCE [TARGET]."""

import sys

from release import main

if __name__ == "__main__":
    sys.exit(main("lewm_tworooms"))
