"""Keys and values of what a model has read, in memory with room for more."""

from __future__ import annotations

from typing import Any

import torch
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
    """Keys or values, (rows, heads, places, width)."""

    def __init__(self, like: Tensor) -> None:
        self._all, self._used = like[:, :, :0], 0

    def append(self, new: Tensor) -> Tensor:
        """Add places; return all."""
        used, self._used = self._used, self._used + new.shape[2]
        if self._used > self._all.shape[2]:
            grown = new.new_empty((*new.shape[:2], self._used + _room(self._used), new.shape[3]))
            grown[:, :, :used] = self._all[:, :, :used]
            self._all = grown
        self._all[:, :, used : self._used] = new
        return self._all[:, :, : self._used]

    def keep(self, rows: Tensor, places: Tensor) -> Tensor:
        """See `GrowingLayer.keep`."""
        self._used = places.shape[1]
        _, heads, room, width = self._all.shape
        first = (rows[:, None] * heads + torch.arange(heads, device=rows.device)) * room  # place of each row and head
        wanted = first[:, :, None] + nn.functional.pad(places, (0, _room(self._used)))[:, None]
        self._all = self._all.flatten(0, 2).index_select(0, wanted.flatten()).view(*wanted.shape, width)
        return self._all[:, :, : self._used]


def _room(places: int) -> int:
    """Return for how many more places there is to be room: so few that the memory does not matter."""
    return 32 + places // 32
