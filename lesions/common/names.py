r"""Names: file names of any bytes as text that can be printed, stored and turned back.

Control characters, bytes that are not UTF-8 and backslashes are written as \x1b, \udcff or \\, so
that a name cannot act on a terminal, and no name is lost.
"""

import unicodedata
from os import PathLike, fspath

SHOWN = 120  # characters of a value in a message
# Unicode categories: control, format, surrogates, unassigned, separators but the space.
_UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}


def escape(name: str | PathLike[str]) -> str:
    r"""Write a name as printable text.

    >>> escape("a\x1b[31m.jpg"), escape("lésion 1.jpg"), escape("a\\b")
    ('a\\x1b[31m.jpg', 'lésion 1.jpg', 'a\\\\b')
    """
    return "".join(map(_escape_character, fspath(name)))


def _escape_character(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character == " " or unicodedata.category(character) not in _UNSAFE:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def unescape(text: str) -> str:
    r"""Turn what `escape` has written back into the name.

    >>> unescape(escape("a\x1b\\n\udcff")) == "a\x1b\\n\udcff"
    True
    """
    # Only what `escape` writes is ASCII with a backslash; the rest is kept as it is.
    parts = text.encode("ascii", "backslashreplace").decode("ascii")
    return parts.encode("ascii").decode("unicode_escape")


def for_spreadsheet(name: str | PathLike[str]) -> str:
    """Escape a path for a CSV file, so that a spreadsheet does not run it as a formula.

    >>> for_spreadsheet("=1+1.jpg"), for_spreadsheet("photos/a.jpg")
    ('./=1+1.jpg', 'photos/a.jpg')
    """
    text = escape(name)
    return f"./{text}" if text.startswith(("=", "+", "-", "@")) else text


def shorten(text: str) -> str:
    """Shorten a value for a message; one of 50 MB would fill the screen.

    >>> shorten("x" * 200) == "x" * 120 + "…"
    True
    """
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def safe_text(text: str) -> str:
    """Escape the control characters of a message; backslashes and line ends stay."""
    return "".join(c if c in "\\\n" else _escape_character(c) for c in text)


def count_of(number: int, noun: str) -> str:
    """Write a number and its noun.

    >>> count_of(1, "photo"), count_of(2000, "photo")
    ('1 photo', '2,000 photos')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
