# SPDX-License-Identifier: Apache-2.0
"""Records are filled and standardised inside the network; what it learns about missing values, and dropout."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from persam_monai.networks.clinical_encoder import ClinicalEncoder

GROUPS, VARIABLES = [5, 3], [[1, 1, 3], [1, 2]]
NAN = torch.nan
OLD_KEYS = {"median", "mean", "scale", "fitted"} | {
    f"networks.{group}.{layer}.{kind}" for group in (0, 1) for layer in (0, 2) for kind in ("weight", "bias")
}


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


def test_statistics_travel_with_the_weights() -> None:
    encoder, other = ClinicalEncoder([2, 3], 8), ClinicalEncoder([2, 3], 8)
    encoder.fit(torch.randn(9, 5) * 4 + 7)
    other.load_state_dict(encoder.state_dict())
    some = torch.randn(2, 5)
    assert torch.equal(other(some), encoder(some))


def test_infinite_and_misshapen_records_are_refused() -> None:
    encoder = ClinicalEncoder([2, 3], 8)
    some = torch.randn(4, 5)
    some[2, 3] = torch.inf
    with pytest.raises(ValueError, match=r"columns \[3\]"):
        encoder.fit(some)
    with pytest.raises(ValueError, match=r"\[P, 5\]"):
        encoder.fit(torch.zeros(0, 5))
    assert not encoder.fitted


# ---- missing values


def learned(dropout: float = 0.0, fitted: bool = True) -> ClinicalEncoder:
    """An encoder whose absence vectors are no longer zero."""
    encoder = ClinicalEncoder(GROUPS, 8, "learned", dropout, VARIABLES)
    assert encoder.tokens is not None
    nn.init.normal_(encoder.tokens.absent_variables)
    if fitted:
        encoder.fit(torch.randn(30, 8) * 3 + 2)
    return encoder


def plain(encoder: ClinicalEncoder) -> ClinicalEncoder:
    """The same networks and statistics, filling in medians and nothing else."""
    other = ClinicalEncoder(encoder.groups, 8)
    other.load_state_dict({key: value for key, value in encoder.state_dict().items() if key in OLD_KEYS})
    return other.eval()


def network_of(encoder: ClinicalEncoder, group: int, record: list[float]) -> Tensor:
    """The token of a group by hand, from ``record`` without gaps."""
    place = slice(0, 5) if group == 0 else slice(5, 8)
    values = (torch.tensor([record])[:, place] - encoder.mean[place]) / encoder.scale[place]
    first, first_bias, second, second_bias = encoder.networks[group].parameters()
    return ((values @ first.T + first_bias).relu() @ second.T + second_bias)[0]


def test_token_is_that_of_medians_plus_a_vector_for_each_missing_variable() -> None:
    encoder = learned()
    assert encoder.tokens is not None
    absent, medians = encoder.tokens.absent_variables, encoder.median.tolist()
    found = encoder(torch.tensor([[NAN, 1.5, NAN, NAN, NAN, 0.5, NAN, NAN], [1.0, 2.0, 0.0, 1.0, 0.0, 3.0, 1.0, 0.0]]))
    filled = [medians[0], 1.5, *medians[2:5], 0.5, *medians[6:]]
    torch.testing.assert_close(found[0, 0], network_of(encoder, 0, filled) + absent[0] + absent[2])
    torch.testing.assert_close(found[0, 1], network_of(encoder, 1, filled) + absent[4])
    for group in (0, 1):
        torch.testing.assert_close(found[1, group], network_of(encoder, group, [1.0, 2, 0, 1, 0, 3, 1, 0]))


def test_a_group_without_a_known_variable_has_a_token_of_its_own() -> None:
    encoder = learned()
    assert encoder.tokens is not None
    record = torch.randn(3, 8)
    record[0, :5] = NAN
    record[1, 5:] = NAN
    record[2] = NAN
    found = encoder(record)
    own = encoder.tokens.empty_groups
    assert torch.equal(found[0, 0], own[0])
    assert torch.equal(found[1, 1], own[1])
    assert torch.equal(found[2], own)
    torch.testing.assert_close(found[0, 1], network_of(encoder, 1, record[0].tolist()))


def test_a_variable_that_lacks_one_of_its_numbers_is_missing() -> None:
    encoder = learned()
    assert encoder.tokens is not None
    record = torch.tensor([[1.0, 2, 0, NAN, 1, 3, NAN, 0]])
    filled = torch.where(record.isnan(), encoder.median, record)[0].tolist()  # what is known stays
    found = encoder(record)
    expected = network_of(encoder, 0, filled) + encoder.tokens.absent_variables[2]
    torch.testing.assert_close(found[0, 0], expected)
    record[0, 5] = NAN
    assert torch.equal(encoder(record)[0, 1], encoder.tokens.empty_groups[1])


def test_without_sizes_every_number_is_a_variable() -> None:
    encoder = ClinicalEncoder([2, 3], 8, "learned")
    assert encoder.tokens is not None
    assert encoder.tokens.absent_variables.shape == (5, 8)
    assert (encoder.tokens.absent_variables == 0).all()
    many = ClinicalEncoder([900, 900], 8, "learned")
    assert many.tokens is not None
    assert many.tokens.empty_groups.std().item() == pytest.approx(1, abs=0.5)


def test_absence_of_one_variable_is_not_that_of_another() -> None:
    encoder = learned()
    record = torch.tensor([1.0, 2, 0, 1, 0, 3, 1, 0])
    first, second, both = record.clone(), record.clone(), record.clone()
    first[0], second[1] = NAN, NAN
    both[0] = both[1] = NAN
    tokens, filled = (net(torch.stack([record, first, second, both])) for net in (encoder, plain(encoder)))
    added = (tokens - filled)[:, 0]
    assert (added[0] == 0).all()
    assert (added[1] - added[2]).abs().max() > 0.1
    torch.testing.assert_close(added[3], added[1] + added[2])
    assert torch.equal(tokens[0, 1], tokens[3, 1])


def test_a_record_alone_is_the_same_record_in_a_batch() -> None:
    encoder, record = learned(), torch.randn(6, 8)
    record[torch.rand(6, 8) < 0.5] = NAN
    record[3, :5] = NAN
    found = encoder(record)
    for place in range(6):
        torch.testing.assert_close(encoder(record[place : place + 1])[0], found[place])


def test_learning_about_absence_starts_where_medians_stand() -> None:
    encoder = ClinicalEncoder(GROUPS, 8, "learned", variables=VARIABLES)
    encoder.fit(torch.randn(20, 8))
    record = torch.randn(40, 8)
    record[:, 0], record[::2, 6:] = NAN, NAN
    assert torch.equal(encoder(record), plain(encoder)(record))


def test_medians_alone_have_no_more_parameters_than_before() -> None:
    encoder = ClinicalEncoder(GROUPS, 8, variables=VARIABLES, dropout=0.5)
    assert set(encoder.state_dict()) == OLD_KEYS
    extra = set(learned().state_dict()) - OLD_KEYS
    assert extra == {"tokens.absent_variables", "tokens.empty_groups"}
    torch.manual_seed(3)
    one = ClinicalEncoder(GROUPS, 8)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    for group, size in enumerate(GROUPS):  # as PyTorch draws two linear layers, and nothing besides
        for layer, linear in ((0, nn.Linear(size, 4)), (2, nn.Linear(4, 8))):
            assert torch.equal(one.get_parameter(f"networks.{group}.{layer}.weight"), linear.weight)
    assert torch.equal(torch.get_rng_state(), after)


def lost(encoder: ClinicalEncoder, bags: int) -> Tensor:
    """Which numbers an encoder in training takes for missing, bool ``[bags, 8]``, by what comes out of it."""
    probe = copy.deepcopy(encoder)
    seen: list[Tensor] = []
    for network in probe.networks:
        network.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    probe.assume_standardised()  # what is filled in is 0
    probe(torch.full((bags, 8), 7.0))
    return torch.cat(seen, dim=1) == 0


@pytest.mark.parametrize("missing", ["median", "learned"])
@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_variables_and_groups_are_dropped_as_often_as_was_asked(missing: str, rate: float) -> None:
    encoder = ClinicalEncoder(GROUPS, 8, missing, rate, VARIABLES).train()
    bags = 20_000
    gone = lost(encoder, bags)
    firsts = [0, 1, 2, 5, 6]  # of each variable
    assert torch.equal(gone[:, 2], gone[:, 3])  # numbers of a variable go together
    assert torch.equal(gone[:, 2], gone[:, 4])
    assert torch.equal(gone[:, 6], gone[:, 7])
    variables = gone[:, firsts].double()
    either = 1 - (1 - rate) ** 2  # by itself, or with its group
    bound = 5 * 0.5 / bags**0.5  # five standard deviations at most
    assert (variables.mean(dim=0) - either).abs().max() < bound
    for group, size in ((variables[:, :3], 3), (variables[:, 3:], 2)):
        whole = group.bool().all(dim=1).double().mean().item()
        assert whole == pytest.approx(rate + (1 - rate) * rate**size, abs=bound)
        together = (group[:, 0] * group[:, 1]).mean().item()
        assert together == pytest.approx(rate + (1 - rate) * rate**2, abs=bound)
    across = (variables[:, 0] * variables[:, 3]).mean().item()  # groups know nothing of one another
    assert across == pytest.approx(either**2, abs=bound)
    following = (variables[1:, 0] * variables[:-1, 0]).mean().item()  # nor do records
    assert following == pytest.approx(either**2, abs=bound)


def test_what_is_dropped_counts_as_missing() -> None:
    encoder = learned(dropout=0.5).train()
    record = torch.randn(200, 8)
    torch.manual_seed(4)
    found = encoder(record)
    torch.manual_seed(4)
    draws = torch.rand(200, 7) < 0.5  # five variables, two groups
    gone = draws[:, :5] | draws[:, [5, 5, 5, 6, 6]]
    expected = torch.where(gone[:, [0, 1, 2, 2, 2, 3, 4, 4]], NAN, record)
    torch.testing.assert_close(found, encoder.eval()(expected), rtol=0, atol=1e-6)


def test_the_seed_decides_what_is_dropped() -> None:
    encoder = learned(dropout=0.3).train()
    record = torch.randn(50, 8)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(encoder(record))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("missing", ["median", "learned"])
def test_without_dropout_no_random_number_is_drawn(missing: str) -> None:
    encoder = ClinicalEncoder(GROUPS, 8, missing, 0.0, VARIABLES).train()
    encoder.assume_standardised()
    record, before = torch.randn(4, 8), torch.get_rng_state()
    assert torch.equal(encoder(record), encoder.eval()(record))
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_is_dropped_when_nothing_is_trained() -> None:
    encoder, record = learned(dropout=0.9).eval(), torch.randn(50, 8)
    filling, before = plain(encoder), torch.get_rng_state()
    assert torch.equal(encoder(record), filling(record))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_unfitted_encoder_refuses_values_whatever_is_dropped() -> None:
    encoder = learned(dropout=0.99, fitted=False).train()
    with pytest.raises(RuntimeError, match="no statistics"):
        encoder(torch.randn(1, 8))


@pytest.mark.parametrize("missing", ["median", "learned"])
@pytest.mark.parametrize("fitted", [False, True])
def test_empty_records_work_fitted_or_not(missing: str, fitted: bool) -> None:
    encoder = ClinicalEncoder(GROUPS, 8, missing, 0.3, VARIABLES)
    if fitted:
        encoder.fit(torch.randn(20, 8))
    found = encoder(torch.full((3, 8), NAN))
    found.square().sum().backward()
    assert torch.isfinite(found).all()
    for parameter in encoder.parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()


def test_absence_learns_where_something_is_absent() -> None:
    encoder = learned()
    assert encoder.tokens is not None
    record = torch.randn(2, 8)
    record[0, 1], record[1, 5:] = NAN, NAN
    encoder(record).square().sum().backward()
    vectors, groups = encoder.tokens.absent_variables.grad, encoder.tokens.empty_groups.grad
    assert vectors is not None
    assert groups is not None
    assert (vectors != 0).any(dim=1).tolist() == [False, True, False, False, False]
    assert (groups != 0).any(dim=1).tolist() == [False, True]


@pytest.mark.parametrize("training", [False, True])
def test_scripted_encoder_is_the_encoder(training: bool) -> None:
    encoder, record = learned(dropout=0.3).train(training), torch.randn(9, 8)
    record[torch.rand(9, 8) < 0.3] = NAN
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(encoder), file)
    file.seek(0)
    scripted = torch.jit.load(file)
    torch.manual_seed(5)
    expected = encoder(record)
    torch.manual_seed(5)
    torch.testing.assert_close(scripted(record), expected)


def test_half_precision_is_near_single_precision_and_its_gradients_are_finite() -> None:
    encoder, record = learned(), torch.randn(9, 8)
    record[torch.rand(9, 8) < 0.4] = NAN
    record[0] = NAN
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder(record)
    torch.testing.assert_close(found.float(), encoder(record), rtol=0, atol=5e-2)
    found.float().square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in encoder.parameters())
