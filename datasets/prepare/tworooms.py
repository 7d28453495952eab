"""Make the default TwoRooms data set: python datasets/prepare/tworooms.py [FILE]."""

from __future__ import annotations

import sys

from wm_toolkit.training.jobs import prepare_two_rooms

if __name__ == "__main__":
    data = prepare_two_rooms(*sys.argv[1:2])
    print(f"{data.path}: {len(data):,} episodes, {data.num_rows:,} rows")
