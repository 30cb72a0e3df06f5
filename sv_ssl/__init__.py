"""sv_ssl: speaker verification from unlabelled speech.

>>> import sv_ssl
>>> model = sv_ssl.load("FOLDER")                    # doctest: +SKIP
>>> model.verify("a.wav", "b.wav")                   # doctest: +SKIP
0.71
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sv_ssl.api import Model, load
    from sv_ssl.core.errors import InputError

__all__ = ["InputError", "Model", "load"]


def __getattr__(name: str) -> Any:
    """What is imported when it is first asked for: torch takes a second."""
    if name not in __all__:
        raise AttributeError(f"module 'sv_ssl' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("sv_ssl.core.errors" if name == "InputError" else "sv_ssl.api"), name)
