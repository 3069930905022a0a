"""Commands that calibrate and validate."""
