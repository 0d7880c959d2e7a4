"""Layouts: how hospitals name and store what the schema means."""
