"""What stands in a profile, how two differ, and whether one can be true: `pdvsim profiles`."""
