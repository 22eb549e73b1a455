import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesions.common.names import escape, for_spreadsheet, safe_text, unescape


@given(st.binary(max_size=40).map(os.fsdecode) | st.text(max_size=40))
def test_every_name_can_be_printed_and_turned_back(name: str) -> None:
    text = escape(name)
    assert text.isprintable()
    text.encode()
    assert unescape(text) == name


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_a_spreadsheet_sees_no_formula(start: str) -> None:
    assert for_spreadsheet(f"{start}1.jpg") == f"./{start}1.jpg"


def test_a_message_cannot_act_on_a_terminal() -> None:
    assert safe_text("C:\\a\x1b[31m\nb\r") == "C:\\a\\x1b[31m\nb\\r"
