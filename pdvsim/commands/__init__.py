"""One module per CLI verb; each holds a click command named `command`, loaded when called."""
