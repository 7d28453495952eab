"""Prepare any D4RL file: python datasets/prepare/d4rl_file.py SOURCE [TARGET]."""

import sys

from release import main

if __name__ == "__main__":
    sys.exit(main("d4rl_file"))
