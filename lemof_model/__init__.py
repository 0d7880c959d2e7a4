"""The method in pure torch and numpy: encoders, logistic learners, importance, attention, messages."""
