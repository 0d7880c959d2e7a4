"""From a hospital's tables and records to a cohort, whatever their layout."""
