"""sv_ssl: speaker verification from unlabelled speech.

>>> import sv_ssl
>>> model = sv_ssl.load("FOLDER")                    # doctest: +SKIP
>>> model.verify("a.wav", "b.wav")                   # doctest: +SKIP
0.71
"""

from typing import TYPE_CHECKING

from sv_ssl.core.lazy import lazy

if TYPE_CHECKING:
    from sv_ssl.api import Model, load
    from sv_ssl.core.errors import InputError

__all__ = ["InputError", "Model", "load"]
__getattr__ = lazy("sv_ssl", {"InputError": "core.errors", "Model": "api", "load": "api"})
