# SPDX-License-Identifier: Apache-2.0
"""How personal a model is: what attention and prediction owe to each variable of the record, and to the patches.

Everything is measured on patients that the model was not trained on, over the bags of an evaluation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from persam_monai.data import BagDataset, FeatureInstances, generator_for
from persam_monai.networks import Attention, PersAM, PersAMOnFeatures

DONORS = 3  # other patients whose value stands in for a patient's own, of each variable
FRACTIONS = (0.05, 0.1, 0.2)  # of a slide's patches, removed for the deletion curve
RANDOM_SETS = 10  # of patches, beside those of highest attention
FLIPS = 5000  # of signs, for the permutation test
TRUTH_PIXELS = 16  # level-0 pixels of a pixel of a truth/*.png
MOSTLY = 0.5  # share of a patch from which it is of a kind


class _Bags:
    """The bags of a test fold with their features, and what the head says of them."""

    def __init__(self, network: PersAM | PersAMOnFeatures, dataset: BagDataset) -> None:
        self.network, self.dataset = network.eval(), dataset
        self.device = next(network.parameters()).device
        # Of each bag the features, and which of the slide's patches they are of; of each patch its location.
        self.by_slide: dict[int, list[tuple[Tensor, np.ndarray]]] = defaultdict(list)
        self.locations: dict[int, dict[int, np.ndarray]] = defaultdict(dict)
        for key in dataset.keys(0):
            item, instances = dataset[key], dataset.instances[key.slide]
            assert instances is not None
            chosen = dataset.draw.choose(len(instances), dataset.entries[key.slide].slide, key.epoch, key.bag)
            self.by_slide[key.slide].append((self._features(item["image"]), chosen))
            self.locations[key.slide].update(zip(chosen.tolist(), item["locations"], strict=True))

    def _features(self, image: np.ndarray) -> Tensor:
        """``[1, D, N]`` of one bag."""
        if isinstance(self.network, PersAM):
            pixels = torch.from_numpy(image).permute(3, 0, 1, 2)[None]  # [1, 3, N, H, W]
            features: Tensor = self.network.extractor(pixels.to(self.device))
            return features
        return torch.from_numpy(image).to(self.device).float().T[None]

    def attend(self, features: Tensor, records: np.ndarray, masks: np.ndarray | None = None) -> Attention:
        """What the head says of one bag with V records ``[V, F]``, or with V masks ``[V, N]``."""
        variants = len(records) if masks is None else len(masks)
        clinical = torch.from_numpy(np.broadcast_to(records, (variants, records.shape[-1])).copy()).to(self.device)
        mask = None if masks is None else torch.from_numpy(masks).to(self.device)
        result: Attention = self.network.head.attend(features.expand(variants, -1, -1), clinical, mask)
        return result


@torch.no_grad()
def measure(network: PersAM | PersAMOnFeatures, dataset: BagDataset, truth_dir: Path | None = None) -> pd.DataFrame:
    """Measure a PersAM on the patients of a test fold.

    Args:
        network: trained, with a :class:`~persam_monai.networks.PersAMHead`.
        dataset: the prepared bags of labelled slides.
        truth_dir: ``truth/`` of a synthetic cohort, if there is one.

    Returns:
        A row for each patient, means over the patient's slides. For each variable of the record
        ``attention:<variable>``, total variation of the patches' weights when its value is another patient's (0 to 1);
        ``prediction:<variable>``, change of the log-odds of the predicted class, absolute; ``gain:<variable>``,
        log-odds of the true class with the patient's own value minus with another's. The predicted class's probability
        ``whole``, and for each fraction without the patches of highest attention (``highest:<fraction>``) and without
        as many random ones (``random:<fraction>``). With a truth, of ambiguous patients, what :func:`_areas` explains.
    """
    bags, truth = _Bags(network, dataset), None
    if truth_dir is not None and (truth_dir / "truth.csv").is_file():
        truth = pd.read_csv(truth_dir / "truth.csv", dtype=str, keep_default_na=False).set_index("slide")
    rows = []
    for slide in bags.by_slide:
        row = {"patient": dataset.entries[slide].patient_id, **_variables(bags, slide), **_deletion(bags, slide)}
        if truth is not None and truth_dir is not None:
            row |= _areas(bags, slide, truth, truth_dir)
        rows.append(row)
    return pd.DataFrame(rows).groupby("patient", sort=False).mean()


def _variables(bags: _Bags, slide: int) -> dict[str, float]:
    """What each variable moves on a slide."""
    schema, entry = bags.dataset.data.schema, bags.dataset.entries[slide]
    sizes = dict(zip(
        [name for group in schema.groups.values() for name in group],
        [size for group in schema.variable_sizes for size in group],
        strict=True,
    ))  # fmt: skip
    others = [other.clinical for other in bags.dataset.entries if other.patient_id != entry.patient_id]
    records, owners, start = [entry.clinical], [""], 0
    for name, size in sizes.items():
        own = slice(start, start + size)
        start += size
        known = [clinical[own] for clinical in others if not np.isnan(clinical[own]).any()]
        for donor in generator_for("donors", entry.slide, name).permutation(len(known))[:DONORS]:
            record = entry.clinical.copy()
            record[own] = known[donor]
            records.append(record)
            owners.append(name)
    logs, variation = np.zeros(()), np.zeros(())
    for features, _ in bags.by_slide[slide]:
        attention = bags.attend(features, np.stack(records))
        logs = logs + attention.logits.double().log_softmax(dim=1).cpu().numpy()  # [V, C]
        weights = attention.pooled.double().cpu().numpy() + 1e-12
        weights /= weights.sum(axis=1, keepdims=True)  # [V, N]
        variation = variation + np.abs(weights - weights[:1]).sum(axis=1) / 2  # [V]
    odds = _log_odds(logs / len(bags.by_slide[slide]))  # [V, C]
    variation = variation / len(bags.by_slide[slide])
    predicted = int(odds[0].argmax())
    moved = {}
    for name in sizes:
        rows = [i for i, owner in enumerate(owners) if owner == name]
        if rows:
            moved[f"attention:{name}"] = float(variation[rows].mean())
            moved[f"prediction:{name}"] = float(np.abs(odds[rows, predicted] - odds[0, predicted]).mean())
            if entry.label is not None:
                moved[f"gain:{name}"] = float((odds[0, entry.label] - odds[rows, entry.label]).mean())
    return moved


def _log_odds(logs: np.ndarray) -> np.ndarray:
    """Log-odds ``[V, C]`` of unnormalised log-probabilities."""
    logs = _normalised(logs)
    return logs - np.log1p(-np.minimum(np.exp(logs), 1 - 1e-12))


def _normalised(logs: np.ndarray) -> np.ndarray:
    return logs - np.logaddexp.reduce(logs, axis=1, keepdims=True)


def _slide_attention(bags: _Bags, slide: int, records: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is said of a slide with V records.

    Returns:
        Which patches were looked at, ``int [P]``; of each the mean pooled attention and a′ ``[P, V, 1 + C]``; the sums
        of the bags' log-probabilities ``[V, C]``.
    """
    found: dict[int, list[np.ndarray]] = defaultdict(list)
    logs = np.zeros(())
    for features, patches in bags.by_slide[slide]:
        attention = bags.attend(features, records)
        logs = logs + attention.logits.double().log_softmax(dim=1).cpu().numpy()
        maps = torch.cat([attention.pooled[:, None], attention.explanatory], dim=1).cpu().numpy()  # [V, 1 + C, N]
        for i, patch in enumerate(patches.tolist()):
            found[patch].append(maps[:, :, i])
    return np.array(list(found)), np.stack([np.mean(values, axis=0) for values in found.values()]), logs


def _deletion(bags: _Bags, slide: int) -> dict[str, float]:
    """The predicted class's probability with and without some of a slide's patches."""
    entry = bags.dataset.entries[slide]
    patches, attention, logs = _slide_attention(bags, slide, entry.clinical[None])
    order = patches[np.argsort(-attention[:, 0, 0], kind="stable")]
    rng = generator_for("deletion", entry.slide)
    removed = [patches[:0]]
    for fraction in FRACTIONS:
        count = max(1, round(fraction * len(patches)))
        removed += [order[:count], *(rng.permutation(patches)[:count] for _ in range(RANDOM_SETS))]
    total, votes = np.zeros((len(removed), logs.shape[1])), np.zeros((len(removed), 1))
    for features, own in bags.by_slide[slide]:
        masks = np.stack([~np.isin(own, gone) for gone in removed])  # [V, N]
        spoken = bags.attend(features, entry.clinical[None], masks).logits.double().log_softmax(dim=1)
        some = masks.any(axis=1, keepdims=True)  # a bag of which nothing is left has no vote
        total += np.where(some, spoken.cpu().numpy(), 0.0)
        votes += some
    chances = np.exp(_normalised(total / np.maximum(votes, 1)))
    chance = chances[:, int(chances[0].argmax())]
    curve = {"whole": float(chance[0])}
    for i, fraction in enumerate(FRACTIONS):
        first = 1 + i * (RANDOM_SETS + 1)
        curve[f"highest:{fraction}"] = float(chance[first])
        curve[f"random:{fraction}"] = float(chance[first + 1 : first + 1 + RANDOM_SETS].mean())
    return curve


def _areas(bags: _Bags, slide: int, truth: pd.DataFrame, truth_dir: Path) -> dict[str, float]:
    """Where attention lies on an ambiguous slide of a synthetic cohort, which shows two kinds of tissue.

    Which of them decides depends on a hidden sign that the record tells. ``own``: area under the ROC curve of pooled
    attention, patches of the deciding kind against those of the other one. ``swapped``: of pooled attention with the
    record of a patient of the opposite sign, patches of the kind that decides then against the other. ``class_map``: of
    the true class's a′ with the own record. ``follows``: whether with a swapped record the predicted class is the one
    that decides then. What is swapped is a mean over all test patients of the opposite sign.
    """
    entry, classes = bags.dataset.entries[slide], list(bags.dataset.data.classes)
    ambiguous = truth[truth["decided_by"] == "ambiguous"]
    if entry.slide not in ambiguous.index or entry.label is None:
        return {}
    row, signs = ambiguous.loc[entry.slide], dict(zip(ambiguous["patient_id"], ambiguous["sign"], strict=True))
    (other,) = (classes.index(kind) for kind in row["kinds"].split("+") if kind != row["deciding_kind"])
    record_of = {one.patient_id: one.clinical for one in bags.dataset.entries}
    donors = [record_of[patient] for patient, sign in signs.items() if sign != row["sign"] and patient in record_of]
    patches, maps, logs = _slide_attention(bags, slide, np.stack([entry.clinical, *donors]))
    locations = [bags.locations[slide][patch] for patch in patches.tolist()]
    kinds = _kinds(truth_dir / f"{Path(entry.slide).stem}.png", locations, _extent(bags.dataset, slide))
    chosen = np.isin(kinds, [entry.label, other])
    deciding = kinds[chosen] == entry.label
    if not donors or deciding.all() or not deciding.any():
        return {}
    maps = maps[chosen]  # [P, V, 1 + C]
    return {
        "own": float(roc_auc_score(deciding, maps[:, 0, 0])),
        "swapped": float(np.mean([roc_auc_score(~deciding, maps[:, v, 0]) for v in range(1, maps.shape[1])])),
        "class_map": float(roc_auc_score(deciding, maps[:, 0, 1 + entry.label])),
        "follows": float((logs[1:].argmax(axis=1) == other).mean()),
    }


def _extent(dataset: BagDataset, slide: int) -> tuple[float, float]:
    """Width and height of a patch in level-0 pixels."""
    instances = dataset.instances[slide]
    if isinstance(instances, FeatureInstances) and instances.extent is not None:
        return instances.extent
    side = dataset.source.patches.size * dataset.source.patches.mpp / 0.25  # a synthetic slide has 0.25 µm/px
    return side, side


def _kinds(file: Path, locations: Sequence[np.ndarray], extent: tuple[float, float]) -> np.ndarray:
    """The class whose tissue most of a patch is, by index, or −1, ``int [N]``."""
    painted = imagecodecs.png_decode(file.read_bytes())  # 0 glass, 1 stroma, then the classes
    width, height = (max(1, round(side / TRUTH_PIXELS)) for side in extent)
    kinds = []
    for x, y in locations:
        part = painted[y // TRUTH_PIXELS : y // TRUTH_PIXELS + height, x // TRUTH_PIXELS : x // TRUTH_PIXELS + width]
        shares = np.bincount(part.ravel(), minlength=2) / part.size
        kind = int(shares.argmax())
        kinds.append(kind - 2 if kind >= 2 and shares[kind] >= MOSTLY else -1)
    return np.array(kinds)


def summarise(seeds: Sequence[pd.DataFrame]) -> dict[str, Any]:
    """Put the measures of a model's seeds together.

    Args:
        seeds: of each seed what :func:`measure` gives, of all folds together.

    Returns:
        JSON-able. ``variables``: by name the means of ``attention``, ``prediction`` and ``gain``, and ``p`` of a
        one-sided permutation test of the gain, whose signs are flipped at random: would another patient's value do as
        well? ``deletion``: ``whole``, and by fraction the means of ``highest`` and ``random``. ``truth``: the means,
        and the number of ``patients``.
    """
    means = pd.concat(seeds).groupby(level=0, sort=False).mean()
    variables: dict[str, Any] = {}
    for name in [column.removeprefix("gain:") for column in map(str, means) if column.startswith("gain:")]:
        variables[name] = {what: float(means[f"{what}:{name}"].mean()) for what in ("attention", "prediction", "gain")}
        variables[name]["p"] = _sign_flip_p(means[f"gain:{name}"].dropna().to_numpy())
    deletion: dict[str, Any] = {"whole": float(means["whole"].mean())}
    for fraction in FRACTIONS:
        deletion[str(fraction)] = {way: float(means[f"{way}:{fraction}"].mean()) for way in ("highest", "random")}
    result = {"variables": variables, "deletion": deletion}
    if "own" in means:
        truth = means[["own", "swapped", "class_map", "follows"]].dropna()
        result["truth"] = {**{str(k): float(v) for k, v in truth.mean().items()}, "patients": len(truth)}
    return result


def _sign_flip_p(gains: np.ndarray) -> float:
    """The share of random signs under which the mean gain would be as large."""
    signs = generator_for("signs", len(gains)).choice([-1.0, 1.0], size=(FLIPS, len(gains)))
    return float((1 + np.count_nonzero(signs @ gains >= gains.sum())) / (1 + FLIPS))
