"""From recordings to arrays in files."""
