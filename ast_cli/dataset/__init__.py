"""Labeled recordings: reading class folders and manifests into examples."""
