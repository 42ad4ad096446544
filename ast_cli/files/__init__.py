"""File handling: atomic writes, locks, append-only files, JSON, and the user's cache."""
