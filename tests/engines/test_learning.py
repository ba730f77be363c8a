# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.inferers import SimpleInferer
from torch import nn
from torch.utils.data import DataLoader, Dataset

from persam_monai.data import prepare_bags
from persam_monai.data.batches import collate_bags
from persam_monai.losses import PersAMLoss
from persam_monai.networks import AttendingNetwork, PersAM, PersAMHead, parameter_groups

EPOCHS = 150


class Bags(Dataset[dict[str, Any]]):
    """Eight bags whose class needs both the colour of the patches and the sign in the record.

    Every picture occurs with both signs, and with both classes: neither image nor record alone says anything.
    """

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, Any]:
        colour, sign, copy = index % 2, index // 2 % 2, index // 4
        chance = np.random.default_rng([colour, copy])
        count = 4 + colour  # bags of different sizes in a batch
        stain = np.array([[200, 60, 120], [90, 60, 200]])[colour]
        return {
            "image": np.clip(chance.normal(stain, 25, (count, 32, 32, 3)), 0, 255).astype(np.uint8),
            "clinical": np.array([1.0 - 2 * sign, np.nan], np.float32),
            "label": colour ^ sign,
            "slide": index,
            "locations": np.zeros((count, 2), np.int64),
            "orientation": chance.integers(0, 8, count, dtype=np.uint8),
        }


def small_network() -> PersAM:
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=4, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    extractor = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    head = PersAMHead(2, [1, 1], 32, width=32, projection_hidden=None, heads=2, feedforward=32, dropout=0.0)
    head.clinical_encoder.fit(torch.tensor([[1.0, 0.0], [-1.0, 1.0]]))
    return PersAM(extractor, head)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_handful_of_bags_is_learnt_by_reading_image_and_record_together(precision: str) -> None:
    torch.manual_seed(0)
    network = small_network()
    loss = PersAMLoss(class_counts=[4, 4])
    groups = parameter_groups(network, lr_extractor=0.05, lr_head=0.05, lr_clinical=0.05)
    losses: list[float] = []
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=EPOCHS,
        train_data_loader=DataLoader(Bags(), batch_size=4, collate_fn=collate_bags),
        network=AttendingNetwork(network, precision),
        optimizer=torch.optim.SGD(groups, momentum=0.9, nesterov=True),
        loss_function=loss,
        inferer=SimpleInferer(),
        prepare_batch=prepare_bags,
        decollate=False,
        accumulation_steps=2,
    )

    @trainer.on(Events.ITERATION_COMPLETED)
    def remember(engine: SupervisedTrainer) -> None:
        losses.append(engine.state.output["loss"].item())

    trainer.run()
    start, end = np.mean(losses[:4]), np.mean(losses[-4:])
    assert end < 0.3 * start, (start, end)  # at best 0.14: targets of 0.95 leave 0.2

    batch = collate_bags([Bags()[i] for i in range(8)])
    assert isinstance(batch, dict)
    image, label, _, named = prepare_bags(batch, "cpu")
    network.eval()
    with torch.no_grad():
        together = network(image, **named)
        alone = network(image, mask=named["mask"])
    assert (together.argmax(1) == label).all()
    assert (alone.argmax(1) == label).float().mean() == 0.5  # without the record nothing but a guess is left
