"""CLAR: two augmented views of a clip attract each other, and what labels there are teach at the same time.

    python recipes/audio_probes/train_clar.py hparams/clar.yaml                                  # the built-in sounds
    python recipes/audio_probes/train_clar.py hparams/clar.yaml --labelled_share 0.1             # a tenth of the labels
    python recipes/audio_probes/train_clar.py hparams/clar.yaml --labelled_share 0               # without labels
    python recipes/audio_probes/train_clar.py hparams/clar.yaml --data_folder /data/speech_commands # prepared clips

hparams/clar.yaml             spectra: log-magnitude, phase and log-mel
hparams/clar_raw.yaml         waveforms
hparams/clar_cross.yaml       the one against the other
hparams/clar_supervised.yaml  the rivals: labels alone, or fine-tuning of --init_from exp/.../model

The share of the labels is one of the clips of every class, or with --labelled_by spk_id of the speakers. The classifier
that was trained is judged on the test part, and so are a linear probe and nearest neighbours on the frozen encoder,
which are fitted on all labels of the training part and chosen by the validation part.

Unlike the released code: Adam in the place of LARS, on all weights alike; a batch of 256 in all, whose clips are all
negatives of each other, and not of 256 a GPU; 1,000 epochs; one schedule whatever the share of labels; the probes come
after the training and not beside it. A recording whose label is not known still is in the contrastive term.

Every key of the YAML can be given on the command line (`--augmentations "[fade, pitch]"`). Without --data_folder the
run is on the built-in sound classes in the sizes of hparams/demo.yaml. --data_folder is what a command of data_prep/
has prepared: Speech Commands, NSynth, ESC-50. The same command again resumes a run that was stopped. The paper's tables
could not be had, so no number of theirs is quoted.

`--help` after a YAML explains each of its options, `--print_config` prints the whole of one that extends another, and
`--record` writes the result below results/ of the present folder; without it, it goes below the output folder.
"""

import sys

from sv_ssl.core import command

if __name__ == "__main__":
    sys.exit(command.start("sv_ssl.training.experiment", __file__, __doc__, task="clips"))
