"""Runs over many inputs: journal, shards, merging, counting."""
