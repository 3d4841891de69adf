"""Callbacks that put `Watch` into the training loops of other libraries, and LoRA under a mask."""
