"""Samples to log-mel energies, as Kaldi computes them: with torch, and with NumPy alone."""
