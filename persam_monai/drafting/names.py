# SPDX-License-Identifier: Apache-2.0
"""What the name of a column gives away: a person, a remark, what came after the diagnosis, or a study's bookkeeping."""

from __future__ import annotations

import re

# Parts of a name, in lower case with ss for ß, wherever they stand in it. Better one variable too many set aside
# (tumor_name, birth_weight), to be taken in by hand, than a patient shown in a draft.
_PERSON = re.compile(
    r"vorname|nachname|surname|forename|firstname|lastname|initial(s|en)|pseudonym"
    r"|telefon|telephone|phone|e-?mail|adress|address|strasse|street|plz|postleit|postcode|postal|zipcode|wohnort"
    r"|geburts|birth|arzt|ärzt|aerzt|doctor|doktor|physician|pathologe|pathologist|surgeon|chirurg|clinician|consultant"
    r"|nummer|aktenzeichen|accession|passport|barcode|versichertennr"
    r"|(case|patient|record|admission|insurance|security|specimen|sample|block|account|file)s?[ _.-]*(number|num)(?!s)"
    r"|(fall|pat|patient|patienten|aufnahme|akten|journal|histo)[ _.-]*(nr|id)(?![a-zäöü])"
)
_PERSON_WORDS = frozenset(
    {"mrn", "ssn", "nhs", "dob", "svnr", "zip", "city", "town", "ort", "fax", "mail", "handy", "gebdat"}
    | {"gebdatum", "geb"}
)
_DOCTOR = re.compile(r"(?:.*[\W_])?(?<!hla[\W_])dr(?![^\W_])")  # and neither HLA-DR nor DR3
_REMARK = re.compile(r"bemerk|anmerk|kommentar|remark(?!er)|comment|free[ _-]?text|freitext|notiz")
_REMARK_WORDS = frozenset({"note", "notes"})

_AFTERWARDS = re.compile(
    r"surviv|überleb|ueberleb|vital[ _-]?stat|death|deceased|verstorben|todes|gestorben|follow[ _-]?up|nachsorge"
    r"|relaps|rezidiv|recurren|progression|respon[sd]|remission|therap|treatment|behandlung|outcome"
    r"|censor|zensier|mortalit|last[ _.-]*(info|contact|seen|known|alive)|(days|weeks|months)[ _.-]to[ _.-]"
)
_AFTERWARDS_WORDS = frozenset(
    {"os", "pfs", "dfs", "efs", "rfs", "dss", "pfi", "dfi", "ttp", "tod", "dead", "died", "alive"} | {"lebt", "expired"}
)
# Names that consist of nothing but such words, the first of which must be there: cardiac_event_history, skin_fold and
# stress_test are clinical.
_EVENT = frozenset({"event"}), frozenset({"time", "to", "status", "indicator", "flag", "observed", "days", "months"})
_BOOKKEEPING = (
    frozenset({"train", "training", "test", "testing", "validation", "holdout", "split", "fold", "kfold", "partition"})
    | {"set", "subset", "dataset", "trainset", "testset", "cohort", "kohorte", "batch"},
    frozenset({"val", "dev", "cv", "or", "and", "is", "in", "data", "id", "no", "nr", "number", "index", "internal"})
    | {"external", "random", "study"},
)


def words_of(name: str) -> set[str]:
    """The words of a column's name in lower case.

    Example:
        >>> sorted(words_of("dateOfBirth_2"))
        ['birth', 'date', 'of']
    """
    return set(re.findall(r"[^\W\d_]+", _apart(name)))


def _apart(name: str) -> str:
    """A name in lower case, with a space before each word that begins with a capital only."""
    return re.sub(r"(?<=[^\W\d_])(?<![A-ZÄÖÜ])(?=[A-ZÄÖÜ])", " ", name).casefold()


def personal(name: str) -> str | None:
    """Why a column may tell who a patient is, or be free text, by its name alone; None if that says nothing."""
    text, words = name.casefold(), words_of(name)
    if _REMARK.search(text) or words & _REMARK_WORDS:
        return "free text by its name; it stays out of a model"
    named = _DOCTOR.match(_apart(name)) or any(re.search(r"names?$|namen$", word) for word in words)
    if named or _PERSON.search(text) or words & _PERSON_WORDS:
        return "an identifier by its name; it stays out of a model"
    return None


def afterwards(name: str) -> bool:
    """Whether a column is called like a treatment, an outcome or a follow-up."""
    return bool(_AFTERWARDS.search(name.casefold()) or words_of(name) & _AFTERWARDS_WORDS or _only(name, *_EVENT))


def bookkeeping(name: str) -> bool:
    """Whether a column is called like a part of a study: a split, a cohort, a batch."""
    return _only(name, *_BOOKKEEPING)


def _only(name: str, telling: frozenset[str], others: frozenset[str]) -> bool:
    words = words_of(name)
    return bool(words & telling) and words <= telling | others
