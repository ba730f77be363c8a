# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import pytest
from persam_monai.drafting.names import afterwards, bookkeeping, personal

from tests.drafting.conftest import Drafted

Draft = Callable[..., Drafted]
ROWS = 24
AGE = {"age": [str(40 + i % 9) for i in range(ROWS)]}


@pytest.mark.parametrize(
    "name",
    [
        *("Name", "Vorname", "NACHNAME", "Patientenname", "PatName", "patient_name", "tumor_name", "Surname"),
        *("Hausarzt", "Überweisender Ärztin", "doctor2", "Pathologist", "treatingPhysician", "dr"),
        *("dr_name", "Dr. med", "DrMed", "DR_2"),
        *(
            "PLZ",
            "Telefon2",
            "phone_home",
            "Straße",
            "STRASSE",
            "street",
            "Wohnort",
            "city",
            "e-mail",
            "Adresse",
            "zip",
        ),
        *("Aufnahmenummer", "FallNr", "Fallnummer", "casenumber", "case_number", "MRN", "ssn", "pat_id", "NHS no"),
        *("Geburtstag", "Geburtsjahr", "DOB", "birth_year", "GebDat"),
        *("Bemerkung", "Kommentar", "remarks", "comment_2", "note", "Freitext", "Anmerkungen"),
    ],
)
def test_a_column_called_so_is_set_aside_and_shown_nowhere(drafted: Draft, name: str) -> None:
    draft = drafted({name: ["Koch, Ida", "Zabel, Uwe"] * (ROWS // 2), **AGE})
    assert list(draft.variables) == ["age"]
    assert not any(word in draft.text for word in ("Koch", "Ida", "Zabel", "Uwe"))
    assert "by its name" in draft.comment_on(name)
    numbers = drafted({name: ["80331", "80337", "80339"] * (ROWS // 3), **AGE}, separator=";")
    assert "8033" not in numbers.text


@pytest.mark.parametrize(
    "name",
    [
        *("toxicity", "ethnicity", "vascularity", "tumor_marker", "tumoremarker", "steroid", "thyroid", "denoted"),
        *(
            "number_of_nodes",
            "lymph_node_number",
            "enamel",
            "sex",
            "bmi",
            "stage",
            "osmolality",
            "methods",
            "pathological_t",
        ),
        *("eventration", "hepatoid", "photo", "zipper", "sport"),
        *("cardiac_event_history", "thromboembolic event", "last_menstrual_period", "time_to_positivity"),
        *("skin_fold", "fold_change", "stress_test", "test_result", "hiv_test", "data_source", "number", "in_situ"),
        *("HLA-DR", "HLA_DR", "hlaDR", "HLA DR", "DR3", "DRB1", "drug"),
    ],
)
def test_clinical_names_say_nothing_of_persons_or_outcomes(name: str) -> None:
    assert personal(name) is None
    assert not afterwards(name)
    assert not bookkeeping(name)


@pytest.mark.parametrize(
    "name",
    [
        *("os_months", "OS", "pfs", "vital_status", "Vitalstatus", "death", "Tod", "Todesursache", "survival_days"),
        *("followup", "follow_up_months", "relapse", "Rezidiv", "response", "therapy", "Therapie", "treatment_arm"),
        *("event", "time_to_event", "EventStatus", "Censorship", "censored", "overall_survival_days", "days_to_death"),
        *("days_to_last_information", "last_contact", "mortality", "PFI", "vitalStatus"),
    ],
)
def test_outcomes_are_suspected_by_their_name_and_can_be_taken_in(drafted: Draft, name: str) -> None:
    draft = drafted({name: ["A", "B", "C"] * (ROWS // 3), **AGE})
    assert list(draft.variables) == ["age"]
    assert "SUSPECTED LEAK by its name" in draft.comment_on(name)
    draft.file.write_text(draft.text.replace(f"    # {name}: {{", f"    {name}: {{"), encoding="utf-8")
    assert draft.cohort().schema.variable_names == ["age", name]


@pytest.mark.parametrize(
    "name",
    [
        "train",
        "isTrain",
        "test",
        "split",
        "train/test split",
        "cv_fold",
        "fold_1",
        "set",
        "TestSet",
        "cohort",
        "batch_no",
    ],
)
def test_bookkeeping_is_set_aside_by_its_name_and_can_be_taken_in(drafted: Draft, name: str) -> None:
    draft = drafted({name: ["A", "B", "C"] * (ROWS // 3), **AGE})
    assert list(draft.variables) == ["age"]
    assert "bookkeeping" in draft.comment_on(name)
    assert f"    # {name}: {{kind: categorical" in draft.text.replace('"', "")


def test_the_heading_always_warns_of_results(drafted: Draft) -> None:
    text = " ".join(drafted(AGE).text.replace("\n# ", " ").split())
    assert "nothing in here is a result of the diagnosis, treatment, outcome or follow-up." in text


@pytest.mark.parametrize("cells", [("Dr. Koch", "Zabel"), ("Prof. Zabel", "Koch"), ("ida@koch.example", "Zabel")])
def test_persons_in_the_cells_set_a_column_aside(drafted: Draft, cells: tuple[str, str]) -> None:
    draft = drafted({"sent_by": list(cells) * (ROWS // 2), **AGE})
    assert list(draft.variables) == ["age"]
    assert "koch" not in draft.text.casefold()


def test_long_numbers_that_all_differ_are_identifiers(drafted: Draft) -> None:
    draft = drafted({"x": [str(481_516 + 9_973 * i) for i in range(ROWS)], **AGE})
    assert list(draft.variables) == ["age"]
    assert "identifier" in draft.comment_on("x")
    assert "481516" not in draft.text
    repeated = drafted({"x": [str(481_516 + 9_973 * (i * 7 % 20)) for i in range(ROWS)], **AGE})
    assert repeated.variables["x"]["kind"] == "numeric"
