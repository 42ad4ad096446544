"""The built-in model and the AudioSet class list."""
