"""The AST model: configuration, layers, and reading and writing checkpoints."""
