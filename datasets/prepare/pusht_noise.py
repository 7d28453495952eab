"""Prepare DINO-WM's Push-T: python datasets/prepare/pusht_noise.py SOURCE [TARGET]."""

import sys

from release import main

if __name__ == "__main__":
    sys.exit(main("pusht_noise"))
