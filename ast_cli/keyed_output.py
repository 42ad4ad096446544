"""Dictionaries that also answer to attributes and positions, as the reference library's outputs do."""

from __future__ import annotations

import inspect
from typing import Any


class KeyedOutput(dict[str, Any]):
    """A dictionary whose values are also attributes: ``out["logits"]``, ``out.logits``, ``out[0]``.

    Fields a subclass declares by annotation are None as attributes while they are not set, and absent as keys.
    """

    def __getattr__(self, name: str) -> Any:
        """Look an attribute up as a key."""
        if name in self:
            return super().__getitem__(name)
        if any(name in inspect.get_annotations(kind) for kind in type(self).__mro__):
            return None
        raise AttributeError(f"{type(self).__name__} has no {name!r}; it has {', '.join(self) or 'nothing'}")

    def __getitem__(self, key: str | int | slice) -> Any:
        """Return a value by key, or by position among those that are set."""
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the values that are set, in order."""
        return tuple(self.values())
