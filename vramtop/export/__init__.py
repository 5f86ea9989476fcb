"""Rows and series in other people's formats."""
