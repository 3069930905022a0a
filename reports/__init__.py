"""Charts and pages from the JSON documents that commands print. Imports no engine."""
