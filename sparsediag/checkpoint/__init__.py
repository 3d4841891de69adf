"""Trained networks on disk, ours and those of others, rebuilt safely."""

# of all commands and the report, so that a quantity has one value
DEFAULTS = {"split": "train", "images": 1000, "batch": 128}
