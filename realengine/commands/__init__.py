"""Commands that run the real engine."""
