"""Prepare any Minari data set: python datasets/prepare/minari_dataset.py SOURCE [TARGET]."""

import sys

from release import main

if __name__ == "__main__":
    sys.exit(main("minari_dataset"))
