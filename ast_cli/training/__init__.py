"""Learning from labelled recordings: data sets, statistics, fine-tuning, evaluation."""
