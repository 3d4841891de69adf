"""Callbacks that put `Watch` into the training loops of other libraries."""
