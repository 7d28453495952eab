"""Prepare any episode folder of Dreamer V1: python datasets/prepare/dreamer_episodes.py SOURCE [TARGET]."""

import sys

from release import main

if __name__ == "__main__":
    sys.exit(main("dreamer_episodes"))
