"""Evaluation of models on labeled recordings."""
