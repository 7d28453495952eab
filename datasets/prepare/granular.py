"""Prepare DINO-WM's granular material: python datasets/prepare/granular.py SOURCE [TARGET]."""

import sys

from release import main

if __name__ == "__main__":
    sys.exit(main("granular"))
