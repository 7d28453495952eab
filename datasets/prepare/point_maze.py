"""Prepare DINO-WM's PointMaze: python datasets/prepare/point_maze.py SOURCE [TARGET]."""

import sys

from release import main

if __name__ == "__main__":
    sys.exit(main("point_maze"))
