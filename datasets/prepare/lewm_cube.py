"""Prepare LeWorldModel's OGBench Cube: python datasets/prepare/lewm_cube.py SOURCE [TARGET]."""

import sys

from release import main

if __name__ == "__main__":
    sys.exit(main("lewm_cube"))
