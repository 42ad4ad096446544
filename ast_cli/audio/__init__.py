"""Decoding of audio files and computation of the model's input values."""
