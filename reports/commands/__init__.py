"""Commands of `reports`; `pdvsim.cli` finds them by name."""
