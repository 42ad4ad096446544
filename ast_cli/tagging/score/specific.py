"""Leave out general labels where a more specific one is nearly as sure, by AudioSet's hierarchy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ast_cli.hierarchy import NEARLY_AS_SURE, classes_below
from ast_cli.labels import label_ids_by_mid


class SpecificLabels:
    """Leaves out each label for which a label below it has at least 0.8 of its score (`NEARLY_AS_SURE`).

    Only labels over their thresholds count, so that none is left out for one that is not reported either. Labels that
    AudioSet's hierarchy does not contain always remain.

    Args:
        id2label: Labels of the checkpoint by class index.
        label_ids: Class indices of the labels that may be reported, shape (num_chosen,).
    """

    def __init__(self, id2label: Mapping[int, str], label_ids: NDArray[np.int64]) -> None:
        places = {label_id: place for place, label_id in enumerate(label_ids.tolist())}
        by_mid = {mid: places[each] for mid, each in label_ids_by_mid(id2label).items() if each in places}
        pairs = [
            (place, by_mid[below]) for mid, place in by_mid.items() for below in classes_below(mid) if below in by_mid
        ]
        self._general, self._specific = np.array(pairs, np.int64).reshape(-1, 2).T  # each of shape (num_pairs,)

    def __call__(self, scores: NDArray[Any], over: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which of the labels over their thresholds remain; arguments and result have shape (num_chosen,)."""
        is_nearly_as_sure = scores[self._specific] >= NEARLY_AS_SURE * scores[self._general]
        remaining = over.copy()
        remaining[self._general[is_nearly_as_sure & over[self._specific]]] = False
        return remaining
