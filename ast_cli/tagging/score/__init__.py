"""From one recording to its scores, in batches with others."""
