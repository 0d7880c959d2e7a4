"""One file per encoder, found by name in ``registry``."""
