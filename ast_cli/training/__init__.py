"""Learning from labeled recordings: fine-tuning and what belongs to it."""
