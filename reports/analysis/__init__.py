"""Rows, charts and tables of the documents that take results apart, a module for each command."""
