"""Decoding in worker processes, so that a file that crashes its decoder costs only itself."""
