"""Labeled recordings: folders by class, tables, and the examples that they hold."""
