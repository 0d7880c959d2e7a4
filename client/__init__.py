"""The hospital: preparation of its cohort, and its part in a study."""
