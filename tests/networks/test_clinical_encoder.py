# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from persam_monai.errors import UserError
from persam_monai.networks import ClinicalEncoder


def records() -> torch.Tensor:
    """Eleven records of very different units, with gaps, a constant and a variable that nobody has."""
    values = torch.randn(11, 6) * torch.tensor([1e3, 1.0, 1e-3, 5.0, 0.0, 1.0]) + torch.tensor([5e3, 0, 0, 9, 0.1, 0])
    values[torch.rand(11, 6) < 0.3] = torch.nan
    values[:, 5] = torch.nan
    return values


def test_records_are_filled_and_standardised_as_scikit_learn_does() -> None:
    training, new = records(), records()
    encoder = ClinicalEncoder([4, 2], width=8)
    encoder.fit(training)
    pipeline = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    pipeline.fit(training.double().numpy())
    expected = torch.from_numpy(pipeline.transform(new.double().numpy()).astype(np.float32))
    plain = ClinicalEncoder([4, 2], width=8)
    plain.networks = encoder.networks
    plain.assume_standardised()
    torch.testing.assert_close(encoder(new), plain(expected), rtol=1e-5, atol=1e-5)


def test_each_token_depends_on_its_own_group_alone() -> None:
    encoder = ClinicalEncoder([2, 3], width=8)
    encoder.assume_standardised()
    one = torch.randn(1, 5)
    other = one.clone()
    other[:, 2:] += 1
    difference = (encoder(one) - encoder(other)).abs().amax(dim=2)
    assert difference[0, 0] == 0
    assert difference[0, 1] > 0


def test_a_record_before_fitting_is_an_error_and_an_empty_one_is_not() -> None:
    for encoder in (ClinicalEncoder([2, 3], 8), torch.jit.script(ClinicalEncoder([2, 3], 8))):
        with pytest.raises((RuntimeError, torch.jit.Error), match=r"no statistics: call fit\(records\)"):
            encoder(torch.randn(1, 5))
        assert encoder(torch.full((1, 5), torch.nan)).shape == (1, 2, 8)


def test_fitting_again_needs_the_very_same_records() -> None:
    encoder, training = ClinicalEncoder([4, 2], 8), records()
    encoder.fit(training)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    encoder.fit(training)
    encoder.fit(training.flip(0))  # their order is no statistic
    for changed in (training * 1.001, training[1:], records()):
        with pytest.raises(UserError, match=r"statistics of other records already.*build a new network"):
            encoder.fit(changed)
    assert all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())


def test_statistics_travel_with_the_weights() -> None:
    encoder, other = ClinicalEncoder([2, 3], 8), ClinicalEncoder([2, 3], 8)
    encoder.fit(torch.randn(9, 5) * 4 + 7)
    other.load_state_dict(encoder.state_dict())
    some = torch.randn(2, 5)
    assert torch.equal(other(some), encoder(some))
    with pytest.raises(UserError):
        other.fit(torch.randn(4, 5))
    standardised = ClinicalEncoder([2, 3], 8)
    standardised.assume_standardised()
    with pytest.raises(UserError):
        standardised.fit(torch.randn(4, 5))


def test_infinite_and_misshapen_records_are_refused() -> None:
    encoder = ClinicalEncoder([2, 3], 8)
    some = torch.randn(4, 5)
    some[2, 3] = torch.inf
    with pytest.raises(ValueError, match=r"columns \[3\]"):
        encoder.fit(some)
    with pytest.raises(ValueError, match=r"\[P, 5\]"):
        encoder.fit(torch.zeros(0, 5))
    assert not encoder.fitted
