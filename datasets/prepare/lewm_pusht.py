"""Prepare LeWorldModel's Push-T: python datasets/prepare/lewm_pusht.py SOURCE [TARGET]."""

import sys

from release import main

if __name__ == "__main__":
    sys.exit(main("lewm_pusht"))
