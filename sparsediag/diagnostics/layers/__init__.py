"""Hooks and counters that the diagnostics of single layers share."""
