"""Masks, live coordinates, batches, the loss of live weights, and the services under them."""
