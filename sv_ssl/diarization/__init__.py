"""Who spoke when: find speech, embed and cluster windows of it, measure the errors.

`sv-diarize` does all of it. In Python:

    from sv_ssl import diarization, models
    from sv_ssl.data import rttm

    speech = diarization.detect("meeting.wav", diarization.energy)
    embed_windows = diarization.embedded_by(models.load("FOLDER"))
    turns = diarization.diarize("meeting.wav", speech, embed_windows, diarization.spectral)
    rttm.write("found.rttm", {"meeting": turns})
    rttm.write_uem("speech.uem", {"meeting": speech})            # what `sv-diarize --uem` keeps to

    reference = rttm.read("meeting.rttm")["meeting"]
    print(diarization.errors(reference, turns).text())
    print(diarization.mapping(reference, turns))                 # who each speaker is: {"spk1": "ann", "spk2": "ben"}
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
