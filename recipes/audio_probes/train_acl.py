"""ACL: two views of a clip are to resemble each other, and to lie at a small angle; other clips beyond a margin.

    python recipes/audio_probes/train_acl.py hparams/acl.yaml                                  # the built-in sounds
    python recipes/audio_probes/train_acl.py hparams/acl.yaml --data_folder /data/FSDnoisy18k --valid_clips subset=clean
    python recipes/audio_probes/train_acl.py hparams/acl_supervised.yaml --data_folder /data/FSDnoisy18k --alpha 0.7

hparams/acl.yaml            without labels: reported 77.1 % by a linear probe on FSDnoisy18k at alpha 0.3, and 74.2 % at
                            alpha 1, which is NT-Xent (Wang et al., ICASSP 2023: one seed, alpha chosen on the test set)
hparams/acl_supervised.yaml with labels: reported 73.6 % at alpha 0.7, 70.1 % at alpha 1, which is cross-entropy

Unlike the paper: the angular term of the supervised recipe is on the embedding and not on a map inside the encoder,
which is a ResNet-18 there too; the augmentations are CLAR's of waveforms; the learning rate falls along a cosine; a
window has no more samples than 30 ms; clips are embedded whole, not by patches whose answers are averaged; and the
linear probe is a logistic regression. The angular term is summed over pairs and divided by a constant, as in the
released code: at batch 128 that weighs the mean over the negatives 2,601-fold, at batch 64 645-fold.

The loss is alpha * L_C + (1 - alpha) * L_A. In the end the encoder is frozen, a linear probe and nearest neighbours are
fitted on the training part, chosen by the validation part and judged once on the test part.

Every key of the YAML can be given on the command line (`--alpha 0.5`). Without --data_folder the run is on the built-in
sound classes in the sizes of hparams/demo.yaml. --data_folder is what a command of data_prep/ has prepared. The same
command again resumes a run that was stopped.

`--help` after a YAML explains each of its options, `--print_config` prints the whole of one that extends another, and
`--record` writes the result below results/ of the present folder; without it, it goes below the output folder.
"""

import sys

from sv_ssl.core import command

if __name__ == "__main__":
    sys.exit(command.start("sv_ssl.training.experiment", __file__, __doc__, task="clips"))
