"""One machine: generated hospitals, splits of a real MIMIC, and the whole study in one process."""
