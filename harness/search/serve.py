"""The Optuna dashboard behind a check of who asks: `python -m harness.search.serve`, which takes its arguments.

The dashboard answers whatever `Host` a request names and whatever `Origin` it comes from, so a page that somebody has
open in a browser could read the searches of this machine (by a name that it lets point here) and delete them. MLflow's
server has such a check of its own.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from harness.hosts import allowed_hosts, refusal

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class Guarded:
    """A WSGI application that refuses requests for other hosts (DNS rebinding) and from pages of other hosts.

    Args:
        hosts: names without ports that a request may be for.
    """

    def __init__(self, application: Application, hosts: Sequence[str]) -> None:
        self._application, self._hosts = application, frozenset(host.lower() for host in hosts)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        problem = self._problem(environ)
        if not problem:
            return self._application(environ, start_response)
        body = json.dumps({"reason": problem}).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response("403 Forbidden", headers)
        return [body]

    def _problem(self, environ: Environ) -> str:
        origin, fetch_site = environ.get("HTTP_ORIGIN"), environ.get("HTTP_SEC_FETCH_SITE")
        host, method = environ.get("HTTP_HOST", ""), environ.get("REQUEST_METHOD", "")
        return refusal(method, host, origin, fetch_site, self._hosts)


def main() -> None:
    """Serves the dashboard over a database that has Optuna's tables, by the server that its own command takes."""
    parser = argparse.ArgumentParser(prog="python -m harness.search.serve")
    parser.add_argument("storage", help="URL of the database")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    asked = parser.parse_args()
    from gunicorn.app.base import BaseApplication
    from optuna_dashboard import wsgi

    class Server(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            for name, value in {"bind": f"{asked.host}:{asked.port}", "threads": 4, "loglevel": "error"}.items():
                self.cfg.set(name, value)

        def load(self) -> Application:
            return Guarded(wsgi(asked.storage), allowed_hosts())

    Server().run()


if __name__ == "__main__":
    main()
