"""Numbers to tables, pictures and pages.

Results are written and read by `record`, which `result_tables` makes tables of; `plots`, `class_plots` and
`watch_plots` draw; `scores_page` makes the report of a trial list, from templates that `html` fills in.
"""

from sv_ssl.core.lazy import lazy

_HOMES = {
    "calibration": "plots",
    "class_distances": "class_plots",
    "confusion_matrix": "class_plots",
    "det_curve": "plots",
    "embedding_map": "class_plots",
    "markdown": "result_tables",
    "score_histogram": "plots",
    "watched": "watch_plots",
    "streams_note": "record",
    "write_benchmark": "record",
}
__all__ = list(_HOMES)
__getattr__ = lazy("sv_ssl.reporting", _HOMES)
