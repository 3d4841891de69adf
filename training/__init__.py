"""Training of sparse nets: a run description goes in, checkpoints come out."""
