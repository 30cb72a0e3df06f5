"""Waves to a vector, and models on disk."""

from sv_ssl.core.lazy import lazy

_HOMES = {
    "ECAPA": "ecapa",
    "Embedder": "embedder",
    "FastResNet34": "resnet",
    "FrameStatistics": "embedder",
    "KaldiFbank": "features",
    "LogMel": "features",
    "ResNet34": "resnet",
    "SpecAugment": "features",
    "WeSpeakerResNet34": "resnet",
    "describe": "folder",
    "fill": "folder",
    "load": "folder",
    "mlp": "heads",
    "renew": "folder",
    "save": "folder",
    "to_onnx": "onnx",
    "to_torchscript": "onnx",
}
__all__ = list(_HOMES)
__getattr__ = lazy("sv_ssl.models", _HOMES)
