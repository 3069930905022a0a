"""The field's closed forms, and each beside the simulated value."""
