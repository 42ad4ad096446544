"""Scoring of recordings: windows of several inputs in shared batches, and results from their scores."""
