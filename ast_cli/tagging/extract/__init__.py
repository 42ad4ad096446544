"""Arrays of recordings, written to files."""
