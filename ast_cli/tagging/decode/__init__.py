"""Decoding in worker processes, so that a file that crashes its decoder is the only one that fails."""
