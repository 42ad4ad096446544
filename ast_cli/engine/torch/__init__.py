"""Engines that run the model in PyTorch."""
