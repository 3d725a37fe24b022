"""Who may ask a web service of this machine: which `Host` a request may name, and which pages it may come from.

A service on loopback asks nobody for a password. A page that somebody has open in a browser must not read it by a name
that it lets point here (DNS rebinding), nor make it do something (a form that is sent across).
"""

import os
from collections.abc import Collection
from urllib.parse import urlsplit

ENVIRONMENT = "HARNESS_ALLOWED_HOSTS"  # names besides this machine's own, comma-separated
LOCAL = ("127.0.0.1", "localhost", "::1")


def allowed_hosts() -> tuple[str, ...]:
    """This machine's names, and those of $HARNESS_ALLOWED_HOSTS."""
    more = os.environ.get(ENVIRONMENT, "").split(",")
    return (*LOCAL, *(host.strip() for host in more if host.strip()))


def refusal(method: str, host: str, origin: str | None, fetch_site: str | None, hosts: Collection[str]) -> str:
    """Why a request is refused, or an empty text.

    Args:
        host, origin, fetch_site: the headers Host, Origin and Sec-Fetch-Site; None where there is none.
        hosts: names without ports that a request may be for, in lower case.
    """
    if _name(f"//{host}") not in hosts:
        return f"no such host here; ${ENVIRONMENT} lists names besides this machine's own"
    if origin is not None and _authority(origin) != host.lower():
        return "asked by a page of another origin"
    if fetch_site in ("cross-site", "same-site") and method != "GET":
        return "asked by a page of another origin"
    return ""


def _name(address: str) -> str | None:
    """The host of an address, without its port; None where it has none, or says two things."""
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        return None
    return None if parts.username is not None or parts.path else parts.hostname


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
