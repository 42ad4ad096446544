"""Tagging of recordings: decoding, scoring, runs over many inputs, and extraction of features."""
