"""Data of a training run: splits of the examples, spectrograms and their statistics, batches."""
