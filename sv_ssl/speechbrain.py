"""What hyperparams.yaml of a model folder names: front ends and encoders by their names in config.json, and three more.

These names stay here, whatever moves inside the package, so that a folder that was written once loads in SpeechBrain
for good. Nobody needs to import this by hand:

    from speechbrain.inference.classifiers import EncoderClassifier
    EncoderClassifier.from_hparams(source="FOLDER").encode_batch(waves)       # (B, samples) -> (B, 1, dim)
"""

from sv_ssl.models.audio_papers import AST, BEATs, Pretrained, RawResNet18, ResNet18, ThreeSpectra, Waveform
from sv_ssl.models.ecapa import ECAPA
from sv_ssl.models.embedder import FrameStatistics
from sv_ssl.models.features import KaldiFbank, LogMel, SpeechBrainFbank, SslsvMel
from sv_ssl.models.for_speechbrain import ForSpeechBrain, Unpadded, load_for_speechbrain
from sv_ssl.models.resnet import FastResNet34, ResNet34, WeSpeakerResNet34

__all__ = [
    "AST",
    "BEATs",
    "ECAPA",
    "FastResNet34",
    "ForSpeechBrain",
    "FrameStatistics",
    "KaldiFbank",
    "LogMel",
    "Pretrained",
    "RawResNet18",
    "ResNet18",
    "ResNet34",
    "SpeechBrainFbank",
    "SslsvMel",
    "ThreeSpectra",
    "Unpadded",
    "Waveform",
    "WeSpeakerResNet34",
    "load_for_speechbrain",
]
