"""SimCLR on unlabelled speech: two crops of an utterance are to resemble each other more than any other's.

    python recipes/voxceleb/train_simclr_am.py hparams/am.yaml                                 # the built-in corpus
    python recipes/voxceleb/train_simclr_am.py hparams/am.yaml --data_folder /data/VoxCeleb    # VoxCeleb, or any speech
    torchrun --nproc_per_node=2 recipes/voxceleb/train_simclr_am.py hparams/am.yaml --data_folder /data/VoxCeleb

hparams/am.yaml       additive margin 0.1, symmetric: reported 7.85 % EER on VoxCeleb1-O (Odyssey 2024)
hparams/aam.yaml      additive angular margin
hparams/sym.yaml      no margin: reported 8.41 %
hparams/ntxent.yaml   no margin, one way: reported 8.98 %
hparams/am_ecapa.yaml ECAPA-TDNN in place of Fast ResNet-34

Every key of the YAML can be given on the command line (`--batch_size 128`). Without --data_folder the run is on the
built-in corpus in the sizes of hparams/demo.yaml. The same command again resumes a run that was stopped.

`--help` after a YAML explains each of its options, `--print_config` prints the whole of one that extends another, and
`--record` writes the result below results/ of the present folder; without it, it goes below the output folder.
"""

import sys

from sv_ssl.core import command

if __name__ == "__main__":
    sys.exit(command.start("sv_ssl.training.experiment", __file__, __doc__, task="speakers"))
