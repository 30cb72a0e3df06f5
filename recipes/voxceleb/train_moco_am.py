"""MoCo on unlabelled speech: a crop must find the other crop of its utterance among a queue of older ones.

    python recipes/voxceleb/train_moco_am.py hparams/moco_am.yaml                              # the built-in corpus
    python recipes/voxceleb/train_moco_am.py hparams/moco_am.yaml --data_folder /data/VoxCeleb # VoxCeleb, or any speech
    torchrun --nproc_per_node=2 recipes/voxceleb/train_moco_am.py hparams/moco_am.yaml --data_folder /data/VoxCeleb

hparams/moco_am.yaml  additive margin 0.1: reported 9.36 % EER on VoxCeleb1-O (Odyssey 2024)
hparams/moco.yaml     no margin: reported 9.59 % (Odyssey 2024), 8.49 % (sslsv)

Every key of the YAML can be given on the command line (`--queue_size 65536`). Without --data_folder the run is on the
built-in corpus in the sizes of hparams/demo.yaml. The same command again resumes a run that was stopped.

`--help` after a YAML explains each of its options, `--print_config` prints the whole of one that extends another, and
`--record` writes the result below results/ of the present folder; without it, it goes below the output folder.
"""

import sys

from sv_ssl.core import command

if __name__ == "__main__":
    sys.exit(command.start("sv_ssl.training.experiment", __file__, __doc__, task="speakers"))
