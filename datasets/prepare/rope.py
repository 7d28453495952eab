"""Prepare DINO-WM's rope: python datasets/prepare/rope.py SOURCE [TARGET]."""

import sys

from release import main

if __name__ == "__main__":
    sys.exit(main("rope"))
