"""Feature networks: images to vectors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from autophagy.common.errors import UserError
from autophagy.common.seeds import rng_for, seed_for
from autophagy.denoisers.pixels import to_unit
from autophagy.features.config import check_available

CLASSIFIER_STEPS = 800
CLASSIFIER_BATCH = 128

Features = Callable[[np.ndarray], np.ndarray]  # images uint8 [B, H, W, C] -> float32 [B, D]


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


def fit_classifier(
    images: np.ndarray, labels: np.ndarray, num_classes: int, seed: int, device: torch.device
) -> Classifier:
    """A classifier on the CPU, trained on images uint8 [n, H, W, C] and labels int64 [n]."""
    torch.manual_seed(seed_for(seed, "classifier"))
    network = Classifier(images.shape[3], num_classes).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=CLASSIFIER_STEPS)
    rng = rng_for(seed, "classifier-batches")
    for _ in range(CLASSIFIER_STEPS):
        rows = rng.integers(len(images), size=CLASSIFIER_BATCH)
        x, y = to_unit(torch.from_numpy(images[rows])).to(device), torch.from_numpy(labels[rows]).to(device)
        loss = nn.functional.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.cpu().eval()


@torch.no_grad()
def accuracy(network: Classifier, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of images uint8 [n, H, W, C] whose label int64 [n] the classifier finds."""
    predicted = torch.cat([network(to_unit(b)).argmax(1) for b in torch.from_numpy(images).split(1024)])
    return float((predicted.numpy() == labels).mean())


def weights_of(network: Classifier) -> bytes:
    """The weights, as safetensors."""
    return save(network.state_dict())


def predict_classes(weights: bytes | None, features: np.ndarray) -> np.ndarray | None:
    """Class that the classifier sees, int64 [n], from its features [n, 64]; None for a network without weights."""
    if weights is None:
        return None
    tensors = load(weights)
    logits = torch.from_numpy(features) @ tensors["head.weight"].T + tensors["head.bias"]
    return logits.argmax(1).numpy()


def feature_function(
    kind: str, weights: bytes | None, channels: int, num_classes: int, device: torch.device
) -> Features:
    """Features of every kind but `latent`; `weights` are those of a classifier."""
    extract = _classifier(weights, channels, num_classes, device) if weights else ready_made(kind, device)

    @torch.no_grad()
    def features(images: np.ndarray) -> np.ndarray:
        return extract(torch.from_numpy(np.array(images)).to(device)).cpu().numpy().astype(np.float32)

    return features


def _classifier(weights: bytes, channels: int, num_classes: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    classifier = Classifier(channels, num_classes)
    classifier.load_state_dict(load(weights))
    body = classifier.body.to(device).eval()
    return lambda images: body(to_unit(images))


def ready_made(kind: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    """uint8 images [B, H, W, C] -> features [B, D], by a network that nobody has to train.

    Raises:
        UserError: a package or its weights are missing.
    """
    if kind == "pixels":
        return lambda images: images.flatten(1).float()
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
