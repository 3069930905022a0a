"""Predict which speculative-decoding scheduling architecture wins at which load, and why."""

__version__ = "0.1.0"
