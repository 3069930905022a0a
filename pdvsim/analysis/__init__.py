"""Why-questions asked of runs and tables."""
