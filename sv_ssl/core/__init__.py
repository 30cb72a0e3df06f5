"""What all rooms may use: errors, files, progress, the machine, random streams, the frame of commands, processes."""

from sv_ssl.core.lazy import lazy

_HOMES = {
    "InputError": "errors",
    "Skipped": "errors",
    "exclusive": "files",
    "atomic_write": "files",
    "check_outputs": "guard",
    "cores": "host",
    "first_few": "files",
    "locked": "files",
    "stream": "seeds",
    "torch_generator": "seeds",
    "torch_stream": "seeds",
    "watched": "progress",
}
__all__ = list(_HOMES)
__getattr__ = lazy("sv_ssl.core", _HOMES)
