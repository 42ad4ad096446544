"""From input_values to logits."""
