"""Make the Push-T data set of exploring pushes: python datasets/prepare/pusht_explored.py [FILE]."""

from __future__ import annotations

import sys

from wm_toolkit.training.prepare import prepare_push_t

if __name__ == "__main__":
    data = prepare_push_t(*sys.argv[1:2])
    print(f"{data.path}: {len(data):,} episodes, {data.num_rows:,} rows")
