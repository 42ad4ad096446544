"""Kaldi-compatible log-mel filter banks, in torch and in NumPy."""
