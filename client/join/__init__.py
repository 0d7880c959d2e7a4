"""Joining a federation and staying in it."""
