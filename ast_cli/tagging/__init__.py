"""From recordings to tags."""
