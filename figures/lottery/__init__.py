"""Spending Your Winning Lottery Better After Drawing It (Jaiswal et al., 2021)."""
