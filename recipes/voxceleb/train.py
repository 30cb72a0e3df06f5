"""Learn speakers from unlabelled speech by any method that is here: the YAML says which.

    python recipes/voxceleb/train.py hparams/dino.yaml                                       # the built-in corpus
    python recipes/voxceleb/train.py hparams/dino.yaml --data_folder /data/VoxCeleb          # VoxCeleb, or any speech
    torchrun --nproc_per_node=2 recipes/voxceleb/train.py hparams/dino.yaml --data_folder /data/VoxCeleb

hparams/ssps.yaml   SimCLR with positives sampled from other recordings: reported 2.57 % EER on VoxCeleb1-O
hparams/dino.yaml   self-distillation: reported 2.63 %
hparams/sdpn.yaml   self-distillation with shared prototypes: reported 1.80 %
hparams/vicreg.yaml no negatives and no teacher: reported 7.42 %

docs/methods.md says what each method assumes and when to take which. Every key of the YAML can be given on the command
line (`--batch_size 128`). Without --data_folder the run is on the built-in corpus, in small sizes. The same command
again resumes a run that was stopped.

`--help` after a YAML explains each of its options, `--print_config` prints the whole of one that extends another, and
`--record` writes the result below results/ of the present folder; without it, it goes below the output folder.
"""

import sys

from sv_ssl.core import command

if __name__ == "__main__":
    sys.exit(command.start("sv_ssl.training.experiment", __file__, __doc__, task="speakers"))
