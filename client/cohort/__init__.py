"""The cohort: what ``prepare`` has written, and a hospital opened for a study."""
