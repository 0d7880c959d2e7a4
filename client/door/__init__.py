"""The door: the one way in for requests and the one way out for answers."""
