"""Learning from labelled recordings: fine-tuning and what belongs to it."""
