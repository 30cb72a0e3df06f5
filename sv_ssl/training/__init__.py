"""Run one experiment: settings to a trained model, judged, and a result.

`experiment` is the engine. What is learnt from whom is a task: `speakers` (with `dataset`, `held_out` and
`speaker_scores`) or `labelled_clips`. `settings`, `recipe_yaml` and `command_line` read what a run is asked to do;
`brain` trains any method, with `optimizer`, `schedules`, `checkpoints`, `journal` and `run_log`; `run_folder` guards
the output folder.
"""

from sv_ssl.core.lazy import lazy

_HOMES = {
    "ClipSettings": "settings",
    "ClipTask": "labelled_clips",
    "Config": "command_line",
    "Settings": "settings",
    "SpeakerSettings": "settings",
    "SpeakerTask": "speakers",
    "Task": "task",
    "setting": "settings",
}
__all__ = list(_HOMES)
__getattr__ = lazy("sv_ssl.training", _HOMES)
