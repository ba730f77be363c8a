# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import yaml

from persam_monai.errors import UserError
from tests.drafting.conftest import Drafted

Draft = Callable[..., Drafted]


def repeated(*cells: str) -> list[str]:
    return [cells[i % len(cells)] for i in range(6 * len(cells))]


@pytest.mark.parametrize(
    ("cells", "kind", "levels", "codes"),
    [
        (("I", "II", "III", "-9"), "ordinal", ["I", "II", "III"], "[-9]"),
        (("1", "2", "3", "k.A."), "ordinal", ["1", "2", "3"], '["k.A."]'),
        (("T1", "T2", "T3", "TX"), "ordinal", ["T1", "T2", "T3"], '["TX"]'),
        (("1", "2", "3", "TX"), "ordinal", ["1", "2", "3"], '["TX"]'),
        (("pN0", "pN1", "pN2", "pNX"), "ordinal", ["pN0", "pN1", "pN2"], '["pNX"]'),
        (("G1", "G2", "G3", "GX"), "ordinal", ["G1", "G2", "G3"], '["GX"]'),
        (("I", "II", "III", "X"), "ordinal", ["I", "II", "III"], '["X"]'),
        (("low", "medium", "high", "not done"), "ordinal", ["low", "medium", "high"], '["not done"]'),
        (("yes", "no", "no", "unbekannt"), "binary", None, '["unbekannt"]'),
        (("yes", "no", "no", "99"), "binary", None, "[99]"),
        (("0", "1", "1", "0", "-9"), "binary", None, "[-9]"),
        (("1", "2", "3", "2", "9"), "ordinal", ["1", "2", "3"], "[9]"),
        (("neg", "pos", "pos", "nicht erhoben"), "binary", ["neg", "pos"], '["nicht erhoben"]'),
        (("neck", "neck", "groin", "axilla", "N.B.", "n.b."), "categorical", ["neck", "axilla", "groin"], '["N.B."]'),
        (("G1", "G1", "G2", "[Not Available]"), "binary", ["G1", "G2"], '["[Not Available]"]'),
        (("a", "a", "b", "<unknown>", "(not reported)"), "binary", ["a", "b"], '["<unknown>", "(not reported)"]'),
        (("a", "a", "b", "'--", "--"), "binary", ["a", "b"], '["\'--", "--"]'),
        (("a", "a", "b", '"[not_evaluated]"'), "binary", ["a", "b"], r'["\"[not_evaluated]\""]'),
    ],
)
def test_what_looks_unknown_is_no_level(
    drafted: Draft, cells: Sequence[str], kind: str, levels: list[str] | None, codes: str
) -> None:
    draft = drafted({"x": repeated(*cells)})
    assert draft.variables["x"] == {"kind": kind, **({"levels": levels} if levels else {})}
    assert f"different values: {len(levels or 'yn')}." in draft.comment_on("x")
    assert f'looks like "not known": if so, missing_codes: {codes}' in draft.comment_on("x")
    with pytest.raises(UserError):  # a person decides
        draft.cohort()
    declared = draft.text.replace(f"x: {{kind: {kind}", f"x: {{kind: {kind}, missing_codes: {codes}")
    draft.file.write_text(declared, encoding="utf-8")
    words = [str(code).casefold() for code in yaml.safe_load(codes)]
    unknown = 6 * sum(cell.casefold() in words for cell in cells)
    assert np.isnan(draft.cohort().clinical_matrix()).any(axis=1).sum() == unknown


@pytest.mark.parametrize(
    "cells",
    [
        *(("A", "B", "AB", "0"), ("clear", "unclear", "mixed"), ("-3.5", "-1", "-9.5", "2"), ("RX", "MX", "C3")),
        *(("--", "+", "++"), ("-/-", "+/-", "+/+"), ("(-)", "(+)", "+"), ("<", ">", "="), ("<5", "5-9", "[10]")),
    ],
)
def test_values_are_not_taken_for_unknown(drafted: Draft, cells: tuple[str, ...]) -> None:
    draft = drafted({"x": repeated(*cells)})
    assert "not known" not in draft.text
    draft.cohort()


def test_a_column_of_few_numbers_among_codes_is_numeric(drafted: Draft) -> None:
    draft = drafted({"pack_years": [str(i) if i % 5 == 0 else "[Not Available]" for i in range(60)]})
    assert draft.variables["pack_years"]["kind"] == "numeric"
    assert 'missing_codes: ["[Not Available]"]' in draft.comment_on("pack_years")


@pytest.mark.parametrize("label", ["'--", "[Unknown]", "unknown"])
def test_a_label_that_looks_unknown_is_no_class(drafted: Draft, label: str) -> None:
    draft = drafted({"label": repeated("FL", "DLBCL", label), "age": [str(40 + 2 * i) for i in range(18)]})
    assert yaml.safe_load(draft.text)["classes"] == ["DLBCL", "FL"]
    assert f'"{label}" (rows: 6)' in draft.text


def test_a_code_of_several_variables_is_proposed_once_for_all(drafted: Draft) -> None:
    draft = drafted(
        {
            "stage": repeated("I", "II", "III", "-9", "k.A."),
            "fever": repeated("0", "1", "1", "-9", "0"),
            "age": [*(str(40 + i) for i in range(29)), "-9"],
            "site": repeated("neck", "groin", "axilla", "neck", "K.A."),
        }
    )
    assert '# missing_codes: [-9, "k.A."]\n' in draft.text
    for name in draft.variables:
        assert "see missing_codes at the top" in draft.comment_on(name)
        assert "missing_codes: [" not in draft.comment_on(name)
    with pytest.raises(UserError):
        draft.cohort()
    draft.file.write_text(draft.text.replace("# missing_codes: [", "missing_codes: ["), encoding="utf-8")
    known = draft.cohort()
    missing = np.isnan(known.clinical_matrix()).sum(axis=0)
    widths = {name: int(missing[known.schema.variable_names.index(name)]) for name in ("stage", "fever", "age")}
    assert widths == {"stage": 12, "fever": 6, "age": 1}


def test_a_code_that_is_a_value_elsewhere_is_proposed_for_its_variables_alone(drafted: Draft) -> None:
    cells = repeated("1", "2", "2", "1", "99")
    draft = drafted({"p": cells, "q": cells, "age": [str(75 + 2 * i) for i in range(30)]})
    assert "at the top" not in draft.text
    assert "missing_codes: [99]" in draft.comment_on("p")


def test_an_answer_too_many_is_worded_for_its_kind(drafted: Draft) -> None:
    draft = drafted({"p": repeated("0", "1", "1", "0", "9"), "q": repeated("1", "2", "3", "0", "-7")})
    assert "widen" not in draft.text
    assert "else it is a third answer: make the variable categorical" in draft.comment_on("p")
    assert "else add it to the levels" in draft.comment_on("q")


def test_one_value_besides_unknown_is_no_variable(drafted: Draft) -> None:
    draft = drafted({"x": repeated("positive", "k.A."), "age": [str(40 + 2 * i) for i in range(12)]})
    assert list(draft.variables) == ["age"]
    assert 'at most one value besides what looks like "not known" ("k.A.")' in draft.comment_on("x")
