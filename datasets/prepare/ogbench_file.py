"""Prepare any OGBench file: python datasets/prepare/ogbench_file.py SOURCE [TARGET]."""

import sys

from release import main

if __name__ == "__main__":
    sys.exit(main("ogbench_file"))
