"""Make and keep embeddings: extract them from audio, read and write them, search among them."""

from sv_ssl.core.lazy import lazy

_HOMES = {
    "Cache": "cache",
    "Embedded": "extractor",
    "Extracted": "extraction",
    "Index": "search",
    "Options": "extractor",
    "SpeakerEmbedding": "pyannote",
    "cache_of": "extraction",
    "embed": "extraction",
    "embed_trials": "extraction",
    "embed_wave": "extraction",
    "extract": "extraction",
    "read": "store",
    "unit": "store",
    "write": "store",
}
__all__ = list(_HOMES)
__getattr__ = lazy("sv_ssl.embeddings", _HOMES)
