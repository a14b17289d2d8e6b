"""Feature networks: images to vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor, nn

from autophagy.common.errors import UserError
from autophagy.denoisers.noise import to_unit
from autophagy.features.config import check_available
from autophagy.store import Artifact

NETWORK_FILE = "network.safetensors"


class Classifier(nn.Module):
    """A small convolutional classifier; the activations before its last layer are the features (64 numbers)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 128, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(512, 64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, num_classes] of images [B, channels, H, W] in [-1, 1]."""
        return self.head(self.body(x))


def predict_classes(network: Artifact, features: np.ndarray) -> np.ndarray | None:
    """Class that the classifier sees, int64 [n], from its features [n, 64]; None for a network without classes."""
    if not network.files():
        return None
    weights = load(network.read_bytes(NETWORK_FILE))
    logits = torch.from_numpy(features) @ weights["head.weight"].T + weights["head.bias"]
    return logits.argmax(1).numpy()


def feature_function(
    kind: str, network: Artifact, info: Mapping[str, Any], device: torch.device
) -> Callable[[Tensor], Tensor]:
    """uint8 images [B, H, W, C] -> float32 features [B, D] for every kind but `latent`."""
    if kind == "classifier":
        classifier = Classifier(info["channels"], info["num_classes"])
        classifier.load_state_dict(load(network.read_bytes(NETWORK_FILE)))
        body = classifier.body.to(device).eval()
        return lambda images: body(to_unit(images))
    if kind == "pixels":
        return lambda images: images.flatten(1).float()
    return ready_made(kind, device)


def ready_made(kind: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    check_available(kind)
    try:
        return _inception(device) if kind == "inception" else _dinov2(device)
    except OSError as error:
        raise UserError(
            f"metrics.feature_network = {kind}: its weights cannot be loaded ({' '.join(str(error).split())[:200]}); "
            "put them into the local cache or use classifier"
        ) from None


def _inception(device: torch.device) -> Callable[[Tensor], Tensor]:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).to(device).eval()
    return lambda images: network(_rgb(images).permute(0, 3, 1, 2).contiguous())[0]


def _dinov2(device: torch.device) -> Callable[[Tensor], Tensor]:
    from transformers import AutoModel

    network = AutoModel.from_pretrained("facebook/dinov2-small").to(device).eval()
    mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], device=device).view(1, 3, 1, 1)

    def class_token(images: Tensor) -> Tensor:
        x = _rgb(images).permute(0, 3, 1, 2).float() / 255
        x = nn.functional.interpolate(x, size=(224, 224), mode="bicubic", antialias=True)
        return network((x - mean) / std).last_hidden_state[:, 0]

    return class_token


def _rgb(images: Tensor) -> Tensor:
    return images.expand(-1, -1, -1, 3) if images.shape[-1] == 1 else images
