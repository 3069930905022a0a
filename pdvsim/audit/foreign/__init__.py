"""Readers of other benchmarks' JSON, one file for each program that writes it."""
