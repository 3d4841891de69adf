"""Trained networks on disk, ours and those of others, rebuilt safely."""
