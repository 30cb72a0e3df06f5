"""Lists of recordings to batches.

The names below are looked up when they are used, so that a manifest is read without torch. Beside them: `manifest` and
`scan`, `rttm` (who spoke when), `sources` (what the commands take as input), `clips` (labelled clips), `subsets`,
`synthetic`, and `loader.loader`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sv_ssl.data.batch import Batch, collate, to_batch
    from sv_ssl.data.batches import Batches
    from sv_ssl.data.clips import ClipReader
    from sv_ssl.data.labels import n_classes, speaker_labels
    from sv_ssl.data.readers import FileReader, Reader
    from sv_ssl.data.shards import ShardBatches, ShardReader
    from sv_ssl.data.views import Note, Views

__all__ = [
    "Batch",
    "Batches",
    "ClipReader",
    "FileReader",
    "Note",
    "Reader",
    "ShardBatches",
    "ShardReader",
    "Views",
    "collate",
    "n_classes",
    "speaker_labels",
    "to_batch",
]

_MODULES = {
    "batch": ("Batch", "collate", "to_batch"),
    "batches": ("Batches",),
    "clips": ("ClipReader",),
    "labels": ("n_classes", "speaker_labels"),
    "readers": ("FileReader", "Reader"),
    "shards": ("ShardBatches", "ShardReader"),
    "views": ("Note", "Views"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"sv_ssl.data.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
