"""Chips as data: reading hardware profiles, fit checks, placement."""
