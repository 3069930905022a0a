"""The published pdverify benchmark: its tables, read and reproduced."""

# The profile that says what the GIL and locks do on a machine like the published one.
MECHANISMS = "h100_tinyllama-1.1b_tinyllama-1.1b_eager"
