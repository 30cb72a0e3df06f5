"""Who spoke when: find speech, embed and cluster windows of it, measure the errors.

`sv-diarize` does all of it. In Python, the speakers that were found and who of the reference they are:

    from sv_ssl import diarization, models
    path = "meeting.wav"
    speech = diarization.detect(path, diarization.energy)
    embed_windows = diarization.embedded_by(models.load("FOLDER"))
    turns = diarization.diarize(path, speech, embed_windows, diarization.spectral)
    diarization.errors(reference, turns).text(), diarization.mapping(reference, turns)    # ..., {"spk1": "ann"}
"""

from sv_ssl.core.lazy import lazy

_HOMES = {
    "Errors": "der",
    "agglomerative": "cluster",
    "detect": "pipeline",
    "diarize": "pipeline",
    "embedded_by": "pipeline",
    "energy": "vad",
    "errors": "der",
    "mapping": "der",
    "pooled": "der",
    "spectral": "cluster",
    "windows": "pipeline",
}
__all__ = list(_HOMES)
__getattr__ = lazy("sv_ssl.diarization", _HOMES)
