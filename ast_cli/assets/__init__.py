"""The built-in model, and AudioSet's labels and hierarchy."""
