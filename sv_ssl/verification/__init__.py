"""Lists to scores to errors.

A list (`trials`) goes once through a `system`, perhaps with models of several utterances (`enroll`), a cohort
(`normalise`) and a calibration (`calibrate`), and becomes scores (`scoring`). Scores and labels become errors
(`metrics`), with intervals (`bootstrap`) and broken down (`conditions`):

    from sv_ssl import verification
    trials = verification.read_trials("trials.txt")
    verification.eer(trials.scores, trials.labels)    # the rate, its threshold
"""

from sv_ssl.core.lazy import lazy

_HOMES = {
    "Calibration": "calibrate",
    "Cohort": "system",
    "System": "system",
    "Trials": "trials",
    "act_dcf": "metrics",
    "auc": "metrics",
    "cllr": "metrics",
    "compare": "bootstrap",
    "cosine": "scoring",
    "eer": "metrics",
    "evaluate": "metrics",
    "evaluate_each": "conditions",
    "intervals": "bootstrap",
    "min_cllr": "metrics",
    "min_dcf": "metrics",
    "read_models": "enroll",
    "read_trials": "trials",
    "report": "scoring",
    "rocch_eer": "metrics",
    "write_scores": "trials",
}
__all__ = list(_HOMES)
__getattr__ = lazy("sv_ssl.verification", _HOMES)
