"""Measure our engines and transformers, which take turns."""
