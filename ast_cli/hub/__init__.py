"""Which checkpoint, where it lies, and fetching it, verified. No torch here."""
