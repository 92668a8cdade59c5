"""The addresses of ``hcrot view``, who may call them, and the one websocket of each tab.

    /                       the page             /page/<file>       its parts
    /runs/<run>/<file>      a picture of a run: PNG or GIF, directly in a folder of the runs folder, and nothing else
    /ws                     messages: {"id": 7, "do": "draw", ...} from the page, {"id": 7, "kind": "step", ...} to it

Only this machine is listened to, unless told otherwise; then the address holds a token, which the page keeps in a cookie. Since a page from
elsewhere, opened in the same browser, could call, too, the ``Host`` and the ``Origin`` of a call must be the server's own.
"""

import hashlib
import json
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from hcrot.view import breaking, draw, edit, inside
from hcrot.view.messages import Request, encoded
from hcrot.view.networks import Networks
from hcrot.view.runs import Runs
from hcrot.view.worker import EXPECTED, Job, Outbox, Worker

__all__ = ["LOCAL", "Guard", "create_app", "inner_file"]

PAGE = Path(__file__).with_name("page")
PICTURES = (".png", ".gif")
LOCAL = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; connect-src 'self' ws: wss:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache",
}  # fmt: skip
LONGEST = 200_000  # characters of a message


def create_app(runs: Path, data: list[str], token: str | None = None) -> Starlette:
    """The application, with a worker thread of its own.

    Args:
        runs: the folder of the runs, which need not be there yet.
        data: what may be trained on: "digits", "mnist", folders of pictures.
        token: what a caller must know; None: callers are on this machine.
    """
    worker, networks, training = Worker(), Networks(runs), Runs(runs, data)
    tasks = {
        "draw": draw.draw, "finish": edit.finish, "fill": edit.fill, "morph": edit.morph, "pick": edit.pick,
        "look": inside.Inside().look, "break": breaking.run,
    }  # fmt: skip
    computed = {name: partial(task, networks) for name, task in tasks.items()}
    at_once: dict[str, Callable[[Request], dict[str, Any]]] = {
        "about": lambda request: {"networks": networks.about(), "data": data, "waiting": worker.waiting, **breaking.about()},
        "runs": training.listed, "follow": training.follow, "start": training.start, "resume": training.resume, "stop": training.stop,
        "change": training.change,
    }  # fmt: skip

    async def page(request: HttpRequest) -> Response:
        response = FileResponse(PAGE / "index.html", headers=HEADERS)
        if token:
            response.set_cookie(cookie_of(token), token, httponly=True, samesite="strict")
        return response

    async def part(request: HttpRequest) -> Response:
        path = inner_file(PAGE, request.path_params["file"], (".css", ".js", ".svg"))
        return FileResponse(path, headers=HEADERS) if path else PlainTextResponse("there is no such part of the page", 404)

    async def picture(request: HttpRequest) -> Response:
        names = request.path_params
        folder = inner_folder(runs, names["run"])
        path = inner_file(folder, names["file"], PICTURES) if folder else None
        return FileResponse(path, headers=HEADERS) if path else PlainTextResponse("there is no such picture in the runs folder", 404)

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await Tab(websocket, worker, computed, at_once).serve()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        """Kernels are compiled before the first click. At the end the thread ends; runs that were started go on."""
        worker.submit(Job(lambda request, report: draw.warm_up(networks), Request({}), lambda message: None))
        yield
        await run_in_threadpool(worker.stop)

    routes = [
        Route("/", page), Route("/page/{file}", part), Route("/runs/{run}/{file}", picture), WebSocketRoute("/ws", socket),
    ]  # fmt: skip
    app = Starlette(routes=routes, lifespan=lifespan)
    app.add_middleware(Guard, token=token)
    return app


def cookie_of(token: str) -> str:
    """Its name. Cookies do not know ports: servers on one machine would overwrite each other's if all had the same name."""
    return f"hcrot_{hashlib.sha256(token.encode()).hexdigest()[:12]}"


def inner_folder(outer: Path, name: str) -> Path | None:
    """The folder of this name directly in another one; None if there is none, or if it is a way out."""
    path = outer / name
    with suppress(OSError):  # a name that is too long
        return path if path.is_dir() and path.resolve().parent == outer.resolve() else None
    return None


def inner_file(folder: Path, name: str, endings: tuple[str, ...]) -> Path | None:
    """The file of this name directly in a folder, with one of these endings; None if there is none, or if it is a way out."""
    path = folder / name
    with suppress(OSError):  # a name that is too long
        inside_ = path.is_file() and path.resolve().parent == folder.resolve() and path.resolve().suffix in endings
        return path if inside_ else None
    return None


class Guard:
    """Lets a call through if its Host and Origin are the server's own, and if it knows the token, where there is one."""

    def __init__(self, app: ASGIApp, token: str | None):
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self.refusal(HTTPConnection(scope)) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocket(scope, receive, send).close(1008, refusal)
        else:
            await PlainTextResponse(refusal, 403)(scope, receive, send)

    def refusal(self, call: HTTPConnection) -> str | None:
        """Why the call is refused; None: it is not."""
        host, origin = call.headers.get("host", ""), call.headers.get("origin")
        try:
            hostname, page = urlsplit(f"//{host}").hostname, None if origin is None else urlsplit(origin).netloc
        except ValueError:
            return "this is not the address of a server"
        if self.token is None and hostname not in LOCAL:
            return f"this server is asked for by 127.0.0.1 or localhost, not by {host[:60]}"
        if page not in (None, host):
            return "this page belongs to another server"
        known = call.query_params.get("token") or call.cookies.get(cookie_of(self.token or "")) or ""
        if self.token is not None and not secrets.compare_digest(known.encode(), self.token.encode()):
            return "the token is missing: open the address that hcrot view has printed"
        return None


class Tab:
    """One tab's websocket: it reads what is asked, and writes what comes back, each at its own pace.

    A message names its ``lane``, such as "draw". What is asked anew in a lane cancels what was asked before in it.
    """

    def __init__(
        self, websocket: WebSocket, worker: Worker, computed: Mapping[str, Callable[..., None]],
        at_once: Mapping[str, Callable[[Request], dict[str, Any]]],
    ):  # fmt: skip
        self.websocket, self.worker, self.computed, self.at_once = websocket, worker, computed, at_once
        self.outbox, self.jobs = Outbox(), dict[str, Job]()

    async def serve(self) -> None:
        """Until the tab has gone; then nothing that it asked for goes on."""
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self.write)
                await self.read()
                group.cancel_scope.cancel()
        finally:
            for job in self.jobs.values():
                job.cancelled.set()

    async def read(self) -> None:
        while True:
            try:
                text = await self.websocket.receive_text()
            except (WebSocketDisconnect, RuntimeError, KeyError):  # KeyError: it was bytes
                return
            await self.take(text)

    async def write(self) -> None:
        while True:
            message = await self.outbox.get()
            try:
                await self.websocket.send_text(encoded(message))
            except (WebSocketDisconnect, RuntimeError):
                return

    async def take(self, text: str) -> None:
        """Do what a message asks for, or have it done."""
        number: Any = None
        try:
            if len(text) > LONGEST:
                raise ValueError(f"a message may have {LONGEST:,} characters, this one has {len(text):,}")
            request = Request(json.loads(text))
            number = request.whole("id", 0, 2**53)
            do = request.choice("do", ["cancel", *self.computed, *self.at_once])
            lane = request.text("lane") if "lane" in request.values else do
            if do == "cancel" or do in self.computed:
                if lane in self.jobs:
                    self.jobs.pop(lane).cancelled.set()
                if do != "cancel":
                    self.jobs[lane] = job = Job(self.computed[do], request, self.sender(number))
                    self.worker.submit(job)
                return
            self.sender(number)({"kind": "answer", **await run_in_threadpool(self.at_once[do], request)})
        except EXPECTED as error:
            self.sender(number)({"kind": "error", "message": str(error)})
        except Exception as error:  # of this message only: the tab goes on
            logging.getLogger("hcrot.view").exception("a message failed")
            self.sender(number)({"kind": "error", "message": f"{type(error).__name__}: {error}"})

    def sender(self, number: Any) -> Callable[[dict[str, Any]], None]:
        return lambda message: self.outbox.put({"id": number, **message})
