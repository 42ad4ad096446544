"""Results that exist: chosen again, converted and compared, without a model."""
