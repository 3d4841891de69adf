"""The version of sparsediag, which checkpoints and results carry."""

__version__ = "0.1.0"
