"""Published checkpoints of other projects become our agents; nothing in them is run."""
