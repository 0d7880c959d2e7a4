"""Looking before the work: what is there, what would happen, what a person should know."""
