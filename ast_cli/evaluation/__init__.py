"""How good models are on labelled recordings."""
