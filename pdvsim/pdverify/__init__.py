"""The published pdverify benchmark: its tables, read and reproduced."""
