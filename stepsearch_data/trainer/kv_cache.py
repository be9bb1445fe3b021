"""Keys and values of what a model has read, in memory with room for more."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.cache_utils import DynamicLayer


class GrowingLayer(DynamicLayer):
    """Writes new keys and values behind the others. `DynamicLayer` copies all of them for every token."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """See `DynamicLayer`."""
        super().lazy_initialization(key_states, value_states)
        self._stores = _Store(key_states), _Store(value_states)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """See `DynamicLayer`."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys, values = self._stores
        self.keys, self.values = keys.append(key_states), values.append(value_states)
        return self.keys, self.values

    def keep(self, rows: Tensor, places: Tensor) -> None:
        """Keep these rows only, (rows,), and of each of them these places, (rows, places)."""
        if self.is_initialized:
            self.keys, self.values = (store.keep(rows, places) for store in self._stores)


class _Store:
    """Keys or values, (rows, heads, places, width); they are stored with places before heads, to be picked fast."""

    def __init__(self, like: Tensor) -> None:
        self._all, self._used = like.transpose(1, 2)[:, :0], 0

    def append(self, states: Tensor) -> Tensor:
        """Add places; return all."""
        new, used = states.transpose(1, 2), self._used
        self._used += new.shape[1]
        if self._used > self._all.shape[1]:
            grown = new.new_empty((len(new), self._used + _room(self._used), *new.shape[2:]))
            grown[:, :used] = self._all[:, :used]
            self._all = grown
        self._all[:, used : self._used] = new
        return self._whole()

    def keep(self, rows: Tensor, places: Tensor) -> Tensor:
        """See `GrowingLayer.keep`."""
        self._used = places.shape[1]
        wanted = nn.functional.pad(places, (0, _room(self._used))) + rows[:, None] * self._all.shape[1]
        picked = self._all.flatten(0, 1).index_select(0, wanted.flatten())
        self._all = picked.view(*wanted.shape, *picked.shape[1:])
        return self._whole()

    def _whole(self) -> Tensor:
        return self._all[:, : self._used].transpose(1, 2)


def _room(places: int) -> int:
    """Return for how many more places there is to be room: so few that the memory does not matter."""
    return 32 + places // 8
