"""What embeddings know: small classifiers on them (`probe`), and how they lie on the sphere (`sphere`)."""

from sv_ssl.core.lazy import lazy

_HOMES = {
    "Pairs": "sphere",
    "Probe": "probe",
    "across": "probe",
    "confusion": "probe",
    "knn": "probe",
    "linear": "probe",
    "pairs": "sphere",
    "pca": "sphere",
    "report": "probe",
    "summary": "sphere",
    "tsne": "sphere",
}
__all__ = list(_HOMES)
__getattr__ = lazy("sv_ssl.analysis", _HOMES)
