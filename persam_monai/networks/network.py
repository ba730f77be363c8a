# SPDX-License-Identifier: Apache-2.0
"""The whole network, heads by name, and how a network starts and learns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from persam_monai.errors import UserError, did_you_mean
from persam_monai.networks.baselines import ClinicalHead, GatedAttentionMILHead, LateFusionHead, TransformerHead
from persam_monai.networks.extractor import PatchExtractor
from persam_monai.networks.head import Attention, Head
from persam_monai.networks.persam import PersAMHead
from persam_monai.networks.precision import AUTOCAST, at_least_float32, resolve_precision

# A name in a data file chooses among these and nothing else: no file makes us import what it likes.
HEADS: dict[str, Callable[..., Head]] = {
    head.__name__: head for head in (PersAMHead, GatedAttentionMILHead, ClinicalHead, LateFusionHead, TransformerHead)
}


def describe_head(head: Head) -> dict[str, Any]:
    """What :func:`build_head` builds a head's like from: its class's name under ``class``, and its arguments."""
    return {"class": type(head).__name__, **head.settings}


def build_head(description: Mapping[str, Any]) -> Head:
    """Builds the head that a model card describes.

    Args:
        description: the name of one of our heads under ``class`` (:class:`PersAMHead` if there is none), and its
            arguments.

    Raises:
        UserError: if the name is not one of our heads, or the arguments are not possible.

    Example:
        >>> build_head({"class": "ClinicalHead", "width": 64}).settings["width"]
        64
    """
    arguments = dict(description)
    name = arguments.pop("class", PersAMHead.__name__)
    if not isinstance(name, str) or name not in HEADS:
        raise UserError(
            f"The model has a head of the class {name!r}; expected one of {', '.join(HEADS)}."
            f"{did_you_mean(str(name), HEADS)} For a head of your own, give the config's block head in a file of yours."
        )
    try:
        return HEADS[name](**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"The model's head {name} cannot be built as it is described: {error}") from error


class PersAM(nn.Module):
    """The whole network: bags of patches and clinical record to class logits and attentions.

    Args:
        extractor: a :class:`PatchExtractor`, or a bare backbone ``[n, 3, H, W]`` → ``[n, D]``, which then gets one
            with ImageNet's pixel statistics.
        head: a :class:`PersAMHead`, or one of the baselines; with that D as its ``feature_dim``, if it reads patches.

    Raises:
        ValueError: if extractor and head do not agree on D.
    """

    def __init__(self, extractor: nn.Module, head: Head) -> None:
        super().__init__()
        if not isinstance(extractor, PatchExtractor):
            extractor = PatchExtractor(extractor, feature_dim=head.feature_dim)
        if head.reads_patches and extractor.feature_dim != head.feature_dim:
            raise ValueError(
                f"feature_dim must agree: the extractor gives {extractor.feature_dim}, the head takes "
                f"{head.feature_dim}."
            )
        self.extractor = extractor
        self.head = head

    def forward(self, image: Tensor, clinical: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Class logits ``[B, C]``; arguments as in :meth:`attend`."""
        return self.attend(image, clinical, mask).logits

    @torch.jit.export
    def attend(self, image: Tensor, clinical: Tensor | None = None, mask: Tensor | None = None) -> Attention:
        """Class logits and attentions.

        Args:
            image: ``[B, 3, N, H, W]``, uint8 or floating, 0–255.
            clinical: ``[B, sum(clinical_groups)]``, NaN where missing; ``None`` is a record with nothing in it.
            mask: ``[B, N]`` bool, true where there is a patch; ``None`` where all are real.

        Returns:
            As :meth:`persam_monai.networks.Head.attend`.
        """
        if self.head.reads_patches:
            features = self.extractor(image, mask)  # [B, D, N]
        else:
            features = torch.zeros((image.shape[0], 1, image.shape[2]), device=image.device)  # of any D
        return self.head.attend(features, clinical, mask)


class PersAMOnFeatures(nn.Module):
    """The network without its extractor, for features that were extracted before.

    What it has learned is named as in :class:`PersAM`, so that an extractor can be put before it afterwards.

    Args:
        head: as of :class:`PersAM`.
    """

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, image: Tensor, clinical: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Class logits ``[B, C]``; arguments as in :meth:`attend`."""
        return self.attend(image, clinical, mask).logits

    @torch.jit.export
    def attend(self, image: Tensor, clinical: Tensor | None = None, mask: Tensor | None = None) -> Attention:
        """Class logits and attentions.

        Args:
            image: features ``[B, D, N]`` of any floating type.
            clinical: as of :meth:`PersAM.attend`.
            mask: as of :meth:`PersAM.attend`.

        Returns:
            As :meth:`persam_monai.networks.Head.attend`.
        """
        return self.head.attend(at_least_float32(image), clinical, mask)


def build_network(head: Head, extractor: nn.Module | None = None) -> PersAM | PersAMOnFeatures:
    """The whole network, or without an extractor the one for features.

    Args:
        head: as of :class:`PersAM`.
        extractor: as of :class:`PersAM`; ``None`` where features are read.
    """
    return PersAMOnFeatures(head) if extractor is None else PersAM(extractor, head)


class AttendingNetwork(nn.Module):
    """Lets ``forward`` give logits and attentions, under autocast for the device it is on.

    Training needs both, and a single ``forward`` is what data-parallel training can drive. MONAI's own ``amp=True``
    stays in float32 on a CPU without saying so.

    Args:
        network: has ``attend``; checkpoints hold it, not this wrapper.
        precision: ``float32``, ``bf16`` or ``auto``; see :func:`persam_monai.networks.resolve_precision`.
        device: where the network goes.

    Raises:
        UserError: if ``precision`` is unknown.
    """

    def __init__(
        self, network: PersAM | PersAMOnFeatures, precision: str = "auto", device: torch.device | str = "cpu"
    ) -> None:
        super().__init__()
        self.network = network.to(device)
        self.precision = resolve_precision(precision, str(device))

    def forward(
        self, image: torch.Tensor, clinical: torch.Tensor | None = None, mask: torch.Tensor | None = None
    ) -> Attention:
        """Logits and attentions; arguments as in :meth:`persam_monai.networks.PersAM.attend`."""
        dtype = AUTOCAST[self.precision]
        with torch.autocast(image.device.type, dtype=dtype, enabled=dtype is not None):
            return self.network.attend(image, clinical, mask)


def seed_weights(seed: int, part: str) -> None:
    """Set torch's random state before a part of the network is made.

    The head then starts from the same weights with and without an extractor made before it, and the extractor from the
    same in training and in extraction.

    Args:
        seed: the run's seed.
        part: name of the part.
    """
    digest = hashlib.sha256(f"{seed} {part}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)  # below 2**63, what manual_seed takes


def parameter_groups(
    network: nn.Module,
    lr_extractor: float = 1e-4,
    lr_head: float = 2e-4,
    lr_clinical: float = 4e-6,
    weight_decay: float = 1e-4,
    decay_norms: bool = True,
) -> list[dict[str, Any]]:
    """Groups ``network``'s parameters for :class:`torch.optim.SGD`, with the paper's learning rates by default.

    Args:
        network: a :class:`~persam_monai.networks.PersAM` or :class:`~persam_monai.networks.PersAMHead`; parameters
            under ``extractor`` and ``clinical_encoder`` have rates of their own, all others are the head's. The head's
            are also the clinical encoder's learned tokens for missing values: free vectors before a layer-norm, as
            class tokens are, which at the clinical networks' small rate would stay where they start.
        lr_extractor: learning rate of the extractor.
        lr_head: learning rate of projection, tokens, encoder, aggregator and classifier.
        lr_clinical: learning rate of the clinical networks.
        weight_decay: of every group that decays.
        decay_norms: whether norms, biases, tokens and embeddings decay too, as in the paper.

    Returns:
        Groups with ``name``, ``params``, ``lr`` and ``weight_decay``; every parameter that learns is in exactly one.
        Frozen parameters (``requires_grad`` false) and groups without parameters are left out.
    """
    rates = {"extractor": lr_extractor, "head": lr_head, "clinical": lr_clinical}
    groups: dict[str, dict[str, Any]] = {}
    for part, rate in rates.items():
        groups[part] = {"name": part, "params": [], "lr": rate, "weight_decay": weight_decay}
        groups[f"{part}_no_decay"] = {"name": f"{part}_no_decay", "params": [], "lr": rate, "weight_decay": 0.0}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        names, part = name.split("."), "head"
        if names[0] == "extractor":
            part = "extractor"
        elif "clinical_encoder" in names and "tokens" not in names:
            part = "clinical"
        is_exempt = parameter.dim() < 2 or "tokens" in names  # norms and biases have one dimension
        groups[f"{part}_no_decay" if is_exempt and not decay_norms else part]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]
