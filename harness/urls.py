"""Addresses of databases and servers: how they may be shown, and what is wrong with one by its looks.

Nothing is connected to here. Which kinds are supported, and what they default to, is said where they are used: tracking
in `store/database.py`, the search in `search/storage.py`.
"""

import re
from urllib.parse import urlsplit

# Names of secrets in a query (`?access_token=`), a connection string (`password=`), an environment (`PGPASSWORD=`).
_NAME = (
    r"[\w.%-]{0,60}(?:passwor[dt]|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|signature|"
    r"credentials?|authorization)"
)
_QUERY = re.compile(rf"([?&;](?:{_NAME}|auth|key|sig)=)([^&#\s'\"<>)]*)", re.IGNORECASE)
_WHOLE_QUERY = re.compile(rf"([?&;](?:{_NAME}|auth|key|sig)=)([^&]*)", re.IGNORECASE)
_ASSIGNED = re.compile(rf"((?<![\w?&;]){_NAME}=)([^\s&'\"]+)", re.IGNORECASE)
# Bounds within: a pattern that may begin anywhere in a long text must not look far.
_LONG_USER = 20  # characters from which on a user of a web address is a token


def masked(text: str) -> str:
    """A URL, or a text with URLs in it, without the passwords: for every place where it is printed or stored.

    >>> masked("https://token@host/a?access_token=b&c=d")
    'https://***@host/a?access_token=***&c=d'
    """
    text = re.sub(
        r"^([\w+.-]{1,40}://[^/:@]*):.*@", r"\1:***@", text
    )  # a whole URL: blanks in it belong to the password
    text = re.sub(r"([\w+.-]{1,40}://[^/:@\s]{0,1000}):\S{0,1000}@", r"\1:***@", text)
    text = re.sub(r"((?:\w{1,10}\+)?https?://)[^/:@\s?#]+@", r"\1***@", text, flags=re.IGNORECASE)  # a token alone
    text = re.sub(
        rf"((?:\w{{1,10}}\+)?https?://)[^/:@\s?#]{{{_LONG_USER},}}:\*\*\*@", r"\1***@", text, flags=re.IGNORECASE
    )
    is_whole = re.match(r"[\w+.-]{1,40}://[^\n]*$", text) is not None
    text = (_WHOLE_QUERY if is_whole else _QUERY).sub(r"\1***", text)
    return _ASSIGNED.sub(r"\1***", text)


def url_problem(url: str) -> str:
    """Why user, password, host and port of a URL cannot be told apart, a sentence with the way out; or nothing.

    Libraries guess differently where a password holds an `@` or a `/`, and some show the half that they took for the
    host: such a URL must not reach them.
    """
    try:
        parts = urlsplit(url)
        is_clear = parts.port != 0 and parts.netloc.count("@") < 2 and "@" not in parts.path
    except ValueError:  # the port is no number up to 65535, or what stands in brackets is no address
        is_clear = False
    if is_clear:
        return ""
    return (
        "user, password, host and port cannot be told apart. The port is a number; in user and password write @ as "
        "%40, : as %3A, / as %2F, ? as %3F and # as %23."
    )
