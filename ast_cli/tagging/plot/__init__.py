"""Pictures of recordings, written to files."""
