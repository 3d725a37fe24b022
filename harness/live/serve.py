"""Serves the live page: `python -m harness.live.serve STORE --port N`, on loopback; `harness ui` starts it."""

import argparse
import threading
from pathlib import Path

from harness.hosts import allowed_hosts
from harness.live.view import Link, warm_up
from harness.live.watch import StoreWatch
from harness.store.cells import Cells

SECONDS_BEFORE = 0.2  # of reading results before the first answer


def main() -> None:
    """Until it is ended."""
    parser = argparse.ArgumentParser(prog="python -m harness.live.serve")
    parser.add_argument("store", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--link", nargs=2, action="append", default=[], metavar=("NAME", "ADDRESS"))
    asked = parser.parse_args()
    import uvicorn

    from harness.live.application import application

    watch = StoreWatch(Cells(asked.store))
    warm_up(watch.all(seconds=SECONDS_BEFORE))
    threading.Thread(target=watch.read_ahead, daemon=True).start()
    served = application(watch, [Link(*it) for it in asked.link], allowed_hosts())
    uvicorn.run(
        served,
        host=asked.host,
        port=asked.port,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,  # a page that is open keeps its stream open: nobody waits for it to be closed
    )


if __name__ == "__main__":
    main()
