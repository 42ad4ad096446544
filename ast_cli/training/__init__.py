"""Training on labeled recordings: fine-tuning, linear probes, and training from random weights."""
