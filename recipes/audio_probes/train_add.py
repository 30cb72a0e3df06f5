"""ADD: a classifier whose classes lie tight, evenly spread and at right angles to each other.

    python recipes/audio_probes/train_add.py hparams/add.yaml                                    # the built-in sounds
    python recipes/audio_probes/train_add.py hparams/add.yaml --lambdas "[0, 0, 0, 0]"           # cross-entropy alone
    python recipes/audio_probes/train_add.py hparams/add.yaml --lambdas "[0, 0, 0, 0]" --focal_gamma 2
    python recipes/audio_probes/train_add.py hparams/add.yaml --lambdas "[0, 0, 0, 0]" --opl_weight 1
    python recipes/audio_probes/train_add.py hparams/add.yaml --data_folder /data/ESC-50 --test_fold 1

hparams/add.yaml       hard labels; reported with AST 94.68 % on ESC-50, 61.30 % on IEMOCAP
hparams/add_soft.yaml  mixup and soft labels; reported with AST 97.54 % on Speech Commands
hparams/add_ast.yaml   AST as the paper has it, trained on AudioSet: weights from disk, read by transformers
hparams/add_beats.yaml BEATs from its checkpoint, in SpeechBrain's code; reported 92.22 % on ESC-50

The result holds, beside the accuracies, ADD's four statistics on the test part, and the distances within and between
the classes. With folds that are numbers run every --test_fold, each with an --output_folder of its own; the mean of the
runs is the accuracy.

Unlike the paper: clips are augmented as waveforms, not masked as spectra; add.yaml and add_soft.yaml have an AST of
their own from scratch, on log-mel that is not scaled to a mean of 0 and a deviation of 0.5 (add_ast.yaml and
add_beats.yaml have the features of those models); soft labels are for cross-entropy, where the released code has binary
cross-entropy; one fold of five is for validation, so that three train and not four.

Every key of the YAML can be given on the command line. Without --data_folder the run is on the built-in sound classes
in the sizes of hparams/demo.yaml. --data_folder is what a command of data_prep/ has prepared. The same command again
resumes a run that was stopped.

`--help` after a YAML explains each of its options, `--print_config` prints the whole of one that extends another, and
`--record` writes the result below results/ of the present folder; without it, it goes below the output folder.
"""

import sys

from sv_ssl.core import command

if __name__ == "__main__":
    sys.exit(command.start("sv_ssl.training.experiment", __file__, __doc__, task="clips"))
