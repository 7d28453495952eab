"""Offline trajectories: storage, windows, loading, conversion and inspection."""
