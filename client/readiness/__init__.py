"""The data-readiness report of a prepared cohort: what was found in the hospital's data, for its own eyes."""
