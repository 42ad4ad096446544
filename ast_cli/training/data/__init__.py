"""What a training run reads: roles of the examples, spectrograms, their statistics, batches."""
