"""Texts for people: neither a message nor a name may drive the terminal, or fill it.

What a user's file, a name or the reason of a failure holds is shown somewhere; what it may hold is said in
`study/bounds.py`.
"""

import re

MOST_SHOWN = 1_000  # characters of one line of a message
MOST_LINES = 50  # of a message; 20 kB with long lines, which nobody reads
MOST_CHARACTERS = 15_000

# Escape and the other control characters of C0 and C1 but tab and newline, marks that turn the direction of writing,
# and lone surrogates, which no terminal can be sent.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with every character that would drive a terminal written as its code.

    >>> print(printable("a" + chr(27) + "[31mb"))
    a\\x1b[31mb
    """
    return UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number with its noun.

    >>> counted(1, "variant"), counted(2, "variant"), counted(0, "study", "studies")
    ('1 variant', '2 variants', '0 studies')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def shortened(text: str, most: int = MOST_SHOWN) -> str:
    """The text, without its middle where it is longer: what is wrong stands at the start, the next step at the end."""
    if len(text) <= most:
        return text
    tail = most // 4
    return f"{text[: most - tail]} [... {len(text) - most:,} more characters ...] {text[-tail:]}"


def message_lines(text: str) -> list[str]:
    """The lines of a message as they may be shown: printable, not too long, not too many."""
    lines = text.splitlines() or [""]
    shown: list[str] = []
    for line in lines[:MOST_LINES]:
        if shown and sum(map(len, shown)) > MOST_CHARACTERS:
            break
        shown.append(shortened(printable(line)))
    left_out = len(lines) - len(shown)
    return shown + [f"... and {left_out:,} more lines."] * bool(left_out)
