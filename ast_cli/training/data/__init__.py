"""What a training run reads: splits of the examples, spectrograms, their statistics, batches."""
