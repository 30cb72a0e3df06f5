"""Supervised training with speaker labels: the upper bound for what is learnt without, and fine-tuning of that.

    python recipes/voxceleb/train_supervised.py hparams/aam_softmax.yaml                               # built-in corpus
    python recipes/voxceleb/train_supervised.py hparams/aam_softmax.yaml --data_folder /data/VoxCeleb
    python recipes/voxceleb/train_supervised.py hparams/aam_softmax.yaml --label_share 0.1 --init_from MODEL_FOLDER

hparams/aam_softmax.yaml  angular margin: sslsv reports 2.95 % EER on VoxCeleb1-O for this encoder
hparams/am_softmax.yaml   additive margin
hparams/label_efficient.yaml        few labels: a share of the utterances, from a model that was trained without any
hparams/label_efficient_pairs.yaml  few labels: some utterances of each speaker, without a classifier

train.csv needs a column spk_id (`python data_prep/voxceleb.py ... --speakers`). `--label_share 0.01` (0.02, 0.05, ...)
trains on that part of the speakers (`--label_share_of utterances`: of the utterances), `--per_speaker_labels 10` on so
many utterances of each, and `--init_from` begins with the encoder that a self-supervised recipe left: what a few labels
add to it. With `--freeze_encoder True` a linear layer behind it learns alone. `--init_from MODEL --crop_seconds 6
--margin 0.5 --peak_lr 1e-5 --epochs 5` is large-margin fine-tuning.

Every key of the YAML can be given on the command line. Without --data_folder the run is on the built-in corpus in the
sizes of hparams/demo.yaml. The same command again resumes a run that was stopped.

`--help` after a YAML explains each of its options, `--print_config` prints the whole of one that extends another, and
`--record` writes the result below results/ of the present folder; without it, it goes below the output folder.
"""

import sys

from sv_ssl.core import command

if __name__ == "__main__":
    sys.exit(command.start("sv_ssl.training.experiment", __file__, __doc__, task="speakers"))
