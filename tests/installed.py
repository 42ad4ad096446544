"""Marks that skip tests if an optional package is missing."""

from __future__ import annotations

import importlib.util

import pytest

# Not importorskip: an import in this process changes what a test sees that imports it itself, or takes seconds in vain.
needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)
