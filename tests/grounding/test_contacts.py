"""Addresses and phone numbers, as they are said and as calls want them."""

from __future__ import annotations

import random

import pytest

from quickstudy.grounding import contacts
from quickstudy.grounding.contacts import ContactFormat, find, formats_of, says, stated_format


def said(value: str, text: str) -> bool:
    return any(says(value, f, p) for p in find(text) for f in formats_of(value, None))


class TestFind:
    @pytest.mark.parametrize(
        ("text", "kind"),
        [
            ("ann.lee@mail.example.org", "email"),
            ("ann at mail dot org", "email"),
            ("https://example.com/a?b=c", "url"),
            ("example.com", "url"),
            ("+44 20 7946 0018", "phone"),
            ("(020) 7946-0018", "phone"),
            ("555-123-4567", "phone"),
        ],
    )
    def test_contacts(self, text: str, kind: str) -> None:
        (phrase,) = find(f"Use {text}, please.")
        assert (phrase.surface, phrase.kind) == (text, kind)

    @pytest.mark.parametrize(
        "text",
        ["2023-03-25", "25.12.2023", "12345678", "meet at noon", "3.14159265", "app.py", "1 2"],
    )
    def test_no_contacts(self, text: str) -> None:
        assert find(text) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("+442079460018", "+44 20 7946 0018"),
        ("5551234567", "(555) 123-4567"),
        ("555-123-4567", "555 123 4567"),
        ("https://example.com", "example.com"),
        ("https://www.example.com", "example.com"),
        ("ann@mail.org", "ann at mail dot org"),
    ],
)
def test_the_same_written_otherwise(value: str, text: str) -> None:
    assert said(value, text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("+442079460018", "020 7946 0018"),
        ("+5551234567", "555-123-4567"),
        ("ann@mail.org", "anna at mail dot org"),
    ],
)
def test_another(value: str, text: str) -> None:
    assert not said(value, text)


@pytest.mark.parametrize(
    ("description", "style"),
    [
        ("phone, E.164", "+"),
        ("phone, digits only", ""),
        ("phone, e.g. 555-123-4567", "###-###-####"),
    ],
)
def test_the_stated_grouping_of_a_phone_number(description: str, style: str) -> None:
    assert stated_format({"description": description}) == ContactFormat("phone", style)


@pytest.mark.parametrize(
    "text", ["+44 20 7946 0018", "ann@mail.org", "example.com/a", "555-123-4567"]
)
def test_fresh_ones_keep_their_shape(text: str) -> None:
    (phrase,) = find(text)
    for seed in range(10):
        made = contacts.fresh(phrase, random.Random(seed))
        assert made is not None
        assert made.surface != text
        if phrase.kind == "phone":
            (format,) = formats_of(text, None)
            assert contacts.write(made, format) == made.surface
            assert made.surface[:3] == text[:3] or text[0] != "+"
        else:
            assert made.surface.rpartition(".")[2] == text.rpartition(".")[2]


def test_a_number_is_said_in_the_users_groups() -> None:
    own = find("+44 20 7946 0018")[0]
    e164 = ContactFormat("phone", "+")
    assert contacts.spoken("+491234567890", e164, own) == "+49 12 3456 7890"
    assert contacts.spoken("+49123", e164, own) is None
