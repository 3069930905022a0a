"""Measures stages, host and contention on this machine and fits a profile. Needs torch."""
