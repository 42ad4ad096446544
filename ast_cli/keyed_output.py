"""Dictionaries with access by key, attribute and position, like the output classes of transformers."""

from __future__ import annotations

import inspect
from typing import Any


class KeyedOutput(dict[str, Any]):
    """A dictionary whose values are also attributes: ``out["logits"]``, ``out.logits``, ``out[0]``.

    A field that a subclass declares by annotation but that is not set is None as an attribute and absent as a key.
    """

    def __getattr__(self, name: str) -> Any:
        """Return the value of a key of this name, or None if the field is declared but not set."""
        if name in self:
            return super().__getitem__(name)
        if any(name in inspect.get_annotations(kind) for kind in type(self).__mro__):
            return None
        raise AttributeError(f"{type(self).__name__} has no {name!r}; it has {', '.join(self) or 'nothing'}")

    def __getitem__(self, key: str | int | slice) -> Any:
        """Return a value by key, or by position or slice among the values that are set."""
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the values that are set, in insertion order."""
        return tuple(self.values())
