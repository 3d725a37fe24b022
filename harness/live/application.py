"""The live page as a web application: what may be asked of it, and what it answers.

    GET  /                                   every study run of the store
    GET  /events                             the same as server-sent events
    GET  /runs/ID/                           one study run
    GET  /runs/ID/events
    GET  /runs/ID/report                     tables and figures of the last look, as JSON
    GET  /runs/ID/cells/KEY/log              what a cell said
    POST /runs/ID/look                       look at the effects now
    GET  /files/NAME                         scripts
    GET  /healthy

Nothing is trained, altered or deleted from here. The one thing that is ever written is a look, in the manifest, when a
reader asks for the effects of seeds that nobody has seen: whoever shows effects spends from the error budget.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from harness.errors import HarnessError
from harness.hosts import refusal
from harness.live.view import Link, index_fragments, page, run_fragments
from harness.live.watch import RunNow, StoreWatch
from harness.report.template import part
from harness.store.cells import is_key
from harness.store.said import said
from harness.texts import printable
from harness.version import harness_version

POLL_SECONDS = 2.0  # between two readings of the store while somebody watches
READING_POLL_SECONDS = 0.2  # while results are still unread
ALIVE_SECONDS = 5.0  # the page says so when it hears nothing for longer
MOST_LOG = 200_000  # characters of each output of a cell
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

Fragments = Callable[[], Mapping[str, str] | None]


class Guarded:
    """Refuses requests for other hosts and from pages of other hosts, and forbids the pages whatever they do not need.

    Args:
        hosts: names without ports that a request may be for.
    """

    def __init__(self, application: ASGIApp, hosts: Sequence[str]) -> None:
        self._application, self._hosts = application, frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = Request(scope).headers
        asked = (headers.get("host", ""), headers.get("origin"), headers.get("sec-fetch-site"))
        application = self._application
        if problem := refusal(scope["method"], *asked, self._hosts):
            application = JSONResponse({"reason": problem}, status_code=403)

        async def send_guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                known = {name for name, _ in message["headers"]}
                extra = [(name.lower().encode(), value.encode()) for name, value in SECURITY.items()]
                message["headers"] = [*message["headers"], *(it for it in extra if it[0] not in known)]
            await send(message)

        await application(scope, receive, send_guarded)


class Reports:
    """The effects of study runs, each computed once for what its looks have seen, by a process of its own."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, tuple[object, Mapping[str, Any]]] = {}
        self._one_at_a_time = asyncio.Lock()

    def effects(self, run: str) -> Mapping[str, Mapping[str, Any]]:
        """By variant, as far as they are known."""
        found = self._known.get(run, (None, {}))[1].get("effects", {})
        assert isinstance(found, Mapping)
        return found

    async def report(self, now: RunNow, *, look: bool = False) -> Mapping[str, Any]:
        """Raises HarnessError where there is nothing to show; the message says why."""
        name, state = now.manifest.id, _seen(now)
        async with self._one_at_a_time:
            if look or self._known.get(name, (None,))[0] != state:
                content = await self._computed(name, look=look)
                self._known[name] = (state, content)
            return self._known[name][1]

    def is_known(self, now: RunNow) -> bool:
        return self._known.get(now.manifest.id, (None,))[0] == _seen(now)

    async def _computed(self, name: str, *, look: bool) -> Mapping[str, Any]:
        command = [sys.executable, "-m", "harness.live.effects", str(self._root), name, *(["--look"] if look else [])]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command, stdout=pipe, stderr=pipe, stdin=asyncio.subprocess.DEVNULL
        )
        try:
            output, problem = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            raise
        if process.returncode:
            lines = problem.decode(errors="replace").strip().splitlines() or ["it ended without a word"]
            raise HarnessError(printable("\n".join(lines if process.returncode == 2 else lines[-1:])))
        content: Mapping[str, Any] = json.loads(output)
        return content


def _seen(now: RunNow) -> object:
    """What a report is of: the looks, and which cells of the seeds that they saw have ended."""
    seen = now.seen_seeds()
    keys = [key for it in now.manifest.variants for seed, key in it.cells.items() if seed in seen]
    return len(now.manifest.looks), tuple(now.states[key].state for key in keys if key not in now.started)


def application(watch: StoreWatch, links: Sequence[Link], hosts: Sequence[str]) -> ASGIApp:
    """The application over one store.

    Args:
        links: the other services, for the head of every page.
        hosts: names that a request may be for.
    """
    root = watch.cells.root
    reports = Reports(root)
    here = [Link("Studies", "/"), *links]

    async def run_of(request: Request) -> RunNow:
        now = await run_in_threadpool(watch.run, request.path_params["run"])
        if now is None:
            raise HTTPException(404, f"{root}: no study run {printable(request.path_params['run'])[:200]!r}.")
        return now

    def fragments_of(now: RunNow) -> dict[str, str]:
        return run_fragments(now, reports.effects(now.manifest.id), time.time())

    async def index(request: Request) -> Response:
        parts = await run_in_threadpool(lambda: index_fragments(watch.all()))
        said_of = {"title": "Studies", "study": "harness", "version": harness_version()}
        return HTMLResponse(page("index", fragments=parts, links=here, store=str(root), **said_of))

    async def run(request: Request) -> Response:
        now = await run_of(request)
        it = now.manifest
        parts = await run_in_threadpool(fragments_of, now)
        said_of = {"id": it.id, "title": it.title, "study": it.study, "profile": it.profile}
        return HTMLResponse(page("run", fragments=parts, links=here, version=harness_version(), **said_of))

    async def index_events(request: Request) -> Response:
        def read() -> tuple[dict[str, str], object, bool]:
            runs = watch.all()
            return index_fragments(runs), None, any(it.count("unread") for it in runs)

        return _stream(request, read)

    async def run_events(request: Request) -> Response:
        name = (await run_of(request)).manifest.id

        def read() -> tuple[dict[str, str], object, bool]:
            now = watch.run(name)
            if now is None:
                return {}, None, False
            is_read = not now.count("unread")
            # A page asks for the report of another look, or of a cell more that ended among its seeds.
            looks = str(hash(_seen(now))) if now.manifest.looks and is_read else None
            return fragments_of(now), looks, not is_read

        return _stream(request, read)

    async def report(request: Request) -> Response:
        now = await run_of(request)
        if not now.manifest.looks:
            raise HTTPException(409, "nobody has looked at the effects yet.")
        return await _answered(reports.report(now))

    async def look(request: Request) -> Response:
        now = await run_of(request)
        if not now.manifest.comparisons or now.manifest.confirms:
            raise HTTPException(409, "there is nothing to look at in this study run.")
        if not set(now.ended_seeds()) - now.seen_seeds():
            raise HTTPException(409, "no seed has ended that an earlier look has not seen.")
        answer = await _answered(reports.report(now, look=True))
        return answer if answer.status_code != 200 else JSONResponse({"looks": len(now.manifest.looks) + 1})

    async def log(request: Request) -> Response:
        now, key = await run_of(request), request.path_params["key"]
        if not is_key(key) or key not in now.states:
            raise HTTPException(404, "this study run has no such cell.")
        try:
            text = await run_in_threadpool(said, watch.cells, key, most_characters=MOST_LOG)
        except HarnessError as error:
            text = str(error)
        return PlainTextResponse(printable(text))

    async def file(request: Request) -> Response:
        found = await run_in_threadpool(_script, request.path_params["name"])
        if found is None:
            raise HTTPException(404, "no such file.")
        return Response(found, media_type="text/javascript", headers={"Cache-Control": "max-age=3600"})

    async def healthy(request: Request) -> Response:
        return PlainTextResponse("ok")

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse({"reason": error.detail}, status_code=error.status_code)

    routes = [
        Route("/", index),
        Route("/events", index_events),
        Route("/healthy", healthy),
        Route("/files/{name}", file),
        Route("/runs/{run}/", run),
        Route("/runs/{run}/events", run_events),
        Route("/runs/{run}/report", report),
        Route("/runs/{run}/look", look, methods=["POST"]),
        Route("/runs/{run}/cells/{key}/log", log),
    ]
    return Guarded(Starlette(routes=routes, exception_handlers={HTTPException: refused}), hosts)


async def _answered(computing: Awaitable[Mapping[str, Any]]) -> Response:
    try:
        return JSONResponse(await computing)
    except HarnessError as error:
        return JSONResponse({"reason": str(error)}, status_code=409)


def _stream(request: Request, read: Callable[[], tuple[dict[str, str], object, bool]]) -> Response:
    """Server-sent events: `parts` that have changed, `looks` when another report is to be shown, `alive` now and then.

    Args:
        read: the fragments now; what the report is of, or None; whether results are still unread.
    """

    async def events() -> AsyncIterator[str]:
        sent: dict[str, str] = {}
        sent_looks, spoken = None, 0.0
        while not await request.is_disconnected():
            parts, looks, is_reading = await run_in_threadpool(read)
            changed = {name: html for name, html in parts.items() if sent.get(name) != html}
            if changed:
                yield _event("parts", changed)
                sent |= changed
            if looks is not None and looks != sent_looks:
                yield _event("looks", looks)
                sent_looks = looks
            if changed:
                spoken = time.monotonic()
            elif time.monotonic() - spoken > ALIVE_SECONDS - POLL_SECONDS:
                yield _event("alive", True)
                spoken = time.monotonic()
            await asyncio.sleep(READING_POLL_SECONDS if is_reading else POLL_SECONDS)

    return StreamingResponse(events(), media_type="text/event-stream")


def _event(kind: str, data: object) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"


def _script(name: str) -> bytes | None:
    match name:
        case "page.js":
            return part("page.js").encode()
        case "live.js":
            return part("live.js", "harness.live").encode()
        case "plotly.js":  # found without importing plotly
            from importlib.util import find_spec

            spec = find_spec("plotly")
            folders = spec.submodule_search_locations if spec else None
            return (Path(folders[0]) / "package_data" / "plotly.min.js").read_bytes() if folders else None
    return None
