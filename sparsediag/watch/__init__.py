"""Measurements of a network while it trains in anybody's loop."""
