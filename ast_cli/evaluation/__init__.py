"""How good models are on labeled recordings."""
