"""From a path to input_values."""
