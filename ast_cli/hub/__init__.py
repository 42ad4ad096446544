"""Names of checkpoints, their local folders, and verified downloads. Does not import torch."""
