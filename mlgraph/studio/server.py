"""The addresses of the studio, and who may use them.

Every request needs the token of the studio in its query, ``?token=...``, except for the page and its files,
which hold no secret. `Host` must be a numeric address or a name of the studio: another site can give its own name
this computer's address, but cannot be named by a number. `Origin`, if a browser sends one, must be the same.
Answers are JSON unless noted; errors are ``{"error": text}`` with a 4xx status, or the text alone where a browser
would show it in place of a page.

| request | what it does |
|---|---|
| ``GET /`` | the page |
| ``GET /api/state`` | `Session.state`: step, epoch, loss, accuracy, n_edges, layers and more |
| ``GET /api/curve?from=0&to=-1&pixels=600`` | the losses of all steps, for a picture that wide, and the tests |
| ``GET /api/network`` | `views.network` |
| ``GET /api/weights?layer=0`` | `views.weights`: a line of JSON, a line feed, bytes |
| ``GET /api/neuron?layer=0&neuron=7`` or ``?node=791`` | `views.neuron` |
| ``GET /api/examples?first=0&count=20&wrong=0`` | `views.examples` |
| ``POST /api/example`` | `views.example` |
| ``GET /api/plane?nodes=5,6&side=48`` | `views.plane`: a line of JSON, a line feed, bytes |
| ``GET /api/points`` | `views.points` |
| ``POST /api/run`` | ``{"do": "play"}``, pause, step, epoch, reset, back, pace (``steps_per_second``) |
| ``POST /api/options`` | ``{"learning_rate": 0.01, ...}``: options of the run |
| ``POST /api/edit`` | `edits.EDITS` |
| ``POST /api/new`` | `build.new`: other data, or another network |
| ``POST /api/upload?name=iris.csv&target=species`` | a .csv or .npz file as the body |
| ``GET /api/file/model.npz``, ``model.c``, ``network.svg`` | what to take away |

Requests that change something answer with the new state. Ids and numbers of layers may come with the ``numbering``
of the answer that told them, as a field or in the query: where they may mean other nodes by now, the answer is 409.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import math
import re
import secrets
from collections.abc import Awaitable, Callable, Set
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from mlgraph._support.checks import one_of, real, shown, whole
from mlgraph.studio import build, take_away, views
from mlgraph.studio.data import MOST_BYTES
from mlgraph.studio.edits import edit
from mlgraph.studio.run import OPTIONS
from mlgraph.studio.session import Session, Stale, json_ready

PAGE = Path(__file__).parent / "page"

MOST_JSON = 2**20
"""Largest body of a request but an upload, in bytes."""

MOST_ERROR = 500
"""Largest number of characters of an error."""

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'",
}


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


def new_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(18)


def application(session: Session, token: str, hosts: Set[str]) -> Starlette:
    """The studio as an ASGI application.

    Parameters
    ----------
    session : Session
    token : str
    hosts : set of str
        Names, in lower case and without a port, by which browsers may address the studio.
    """
    api = Api(session)
    routes = [
        Route("/", _guarded(api.page, None, hosts)),
        Route("/page/{name}", _guarded(api.file_of_page, None, hosts)),
        *(
            Route(f"/api/{name}", _guarded(handler, token, hosts), methods=[method])
            for method, name, handler in api.handlers()
        ),
    ]
    return Starlette(routes=routes, exception_handlers={404: _not_found, 405: _not_found})


async def _not_found(request: Request, error: Any) -> Response:
    return _error(request, f"there is no {request.method} {request.url.path}", error.status_code)


def _answer(value: Any, status: int = 200) -> Response:
    content = json.dumps(value, allow_nan=False)  # in ASCII: names may have half of a surrogate pair
    return Response(content, status, headers=HEADERS, media_type="application/json")


def _error(request: Request, text: str, status: int) -> Response:
    text = " ".join(text.split())
    text = text if len(text) <= MOST_ERROR else f"{text[: MOST_ERROR - 3]}..."
    if "text/html" in request.headers.get("accept", ""):
        return Response(text, status, headers=HEADERS, media_type="text/plain")
    return _answer({"error": text}, status)


def _guarded(
    handler: Callable[[Request], Awaitable[Response]], token: str | None, hosts: Set[str]
) -> Callable[[Request], Awaitable[Response]]:
    async def guarded(request: Request) -> Response:
        try:
            _check_host(request, hosts)
            if token is not None:
                _check_token(request, token)
            return await handler(request)
        except Refused as refused:
            return _error(request, refused.text, refused.status)
        except Stale as stale:
            return _error(request, str(stale), 409)
        except (ValueError, TypeError, IndexError, RuntimeError) as error:
            return _error(request, str(error), 422)
        except ClientDisconnect:
            return Response(status_code=400)

    return guarded


def _check_token(request: Request, token: str) -> None:
    given = request.query_params.get("token", "")
    if not hmac.compare_digest(given.encode("utf-8", "replace"), token.encode()):
        what = "is not that of this studio, which may have been started again" if given else "is missing"
        raise Refused(403, f"the token in the address {what}; open the address that the studio printed")


def _check_host(request: Request, hosts: Set[str]) -> None:
    host = request.headers.get("host", "")
    name = name_of(host)
    if name not in hosts and not is_address(name):
        what = f"{shown(name)} is not a name of the studio" if name else "the request names no host"
        instead = f", or start it with --allow-host {name}" if NAME.fullmatch(name) else ""
        raise Refused(403, f"{what}; open the address that it printed{instead}")
    origin = request.headers.get("origin")
    if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
        raise Refused(403, f"requests from {origin} are refused")


NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
"""Names of hosts, in lower case."""


def name_of(host: str) -> str:
    """A host of a URL without its port, in lower case."""
    return (host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]).lower()


def is_address(name: str) -> bool:
    """Whether the name of a host, as in a URL, is a numeric address."""
    try:
        ipaddress.IPv6Address(name[1:-1]) if name.startswith("[") else ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return True


async def _body(request: Request, most: int) -> bytes:
    found = bytearray()
    async for chunk in request.stream():
        found += chunk
        if len(found) > most:
            raise Refused(413, f"the body is larger than {most} bytes")
    return bytes(found)


def _refuse(name: str) -> Any:
    raise ValueError(name)


def _finite(text: str) -> float:
    """A number of JSON; ValueError for one such as 1e999, which Python reads as infinity."""
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


async def _json(request: Request) -> dict[str, Any]:
    try:
        value = json.loads(await _body(request, MOST_JSON), parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        raise Refused(400, "the body is no JSON") from None
    if not isinstance(value, dict):
        raise Refused(400, "the body: expected a JSON object")
    return value


def _number(request: Request, name: str, default: int, least: int, most: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        value = int(text)
    except ValueError:
        raise Refused(400, f"{name}: expected an integer, got {text[:40]!r}") from None
    if not least <= value <= most:
        raise Refused(400, f"{name}: expected {least} to {most}, got {value}")
    return value


def _numbering(request: Request) -> int | None:
    return _number(request, "numbering", 0, 0, 2**62) if "numbering" in request.query_params else None


class Api:
    """The handlers of the requests in the table above."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def handlers(self) -> list[tuple[str, str, Callable[[Request], Awaitable[Response]]]]:
        """Method, name and handler of each address below /api/."""
        return [
            ("GET", "state", self.state),
            ("GET", "curve", self.curve),
            ("GET", "network", self.network),
            ("GET", "weights", self.weights),
            ("GET", "neuron", self.neuron),
            ("GET", "examples", self.examples),
            ("POST", "example", self.example),
            ("GET", "plane", self.plane),
            ("GET", "points", self.points),
            ("POST", "run", self.run),
            ("POST", "options", self.options),
            ("POST", "edit", self.edit),
            ("POST", "new", self.new),
            ("POST", "upload", self.upload),
            ("GET", "file/{name}", self.file),
        ]

    async def page(self, request: Request) -> Response:
        """The page."""
        return FileResponse(PAGE / "index.html", headers=HEADERS, media_type="text/html")

    async def file_of_page(self, request: Request) -> Response:
        """A file of the page."""
        name = request.path_params["name"]
        path = next((path for path in PAGE.iterdir() if path.name == name and path.suffix in TYPES), None)
        if path is None:
            raise Refused(404, f"the page has no {shown(name)}")
        return FileResponse(path, headers=HEADERS, media_type=TYPES[path.suffix])

    async def state(self, request: Request) -> Response:
        """See the table of the module, here and below."""
        return await self._state()

    async def _state(self) -> Response:
        return _answer(await run_in_threadpool(self._session.state))

    async def _change(self, function: Callable[..., None], *args: Any) -> Response:
        """Call a function that changes the session; the new state is the answer."""
        await run_in_threadpool(function, self._session, *args)
        return await self._state()

    async def _look(self, function: Callable[..., Any], *args: Any, numbering: int | None = None) -> Any:
        """Call a function that uses the graph, and may take its time; the ids in `args` are of this `numbering`."""
        session = self._session

        def look() -> Any:
            run = session.run
            if numbering is not None:
                session.require_numbering(numbering)
            try:
                with run.gives_way():
                    return function(session, *args)
            except Exception:
                if run is not session.run or numbering not in (None, session.numbering):
                    raise Refused(409, "another network came meanwhile: ask again") from None
                raise

        return await run_in_threadpool(look)

    async def curve(self, request: Request) -> Response:
        """The losses."""
        run = self._session.run
        first = _number(request, "from", 0, 0, 2**62)
        last = _number(request, "to", -1, -1, 2**62)
        pixels = _number(request, "pixels", 600, 1, 4000)
        last = run.steps if last < 0 else last
        found = run.curve.columns(first, last, pixels)
        tests = [entry for entry in list(run.epoch_curve) if first <= (entry["step"] or 0) <= last]
        tests = tests[:: max(1, len(tests) // 1000)] if len(tests) > 1000 else tests
        return _answer({**found, "from": first, "to": last, "steps": run.steps, "tests": json_ready(tests)})

    async def network(self, request: Request) -> Response:
        """The nodes to draw."""
        return _answer(await self._look(views.network))

    async def weights(self, request: Request) -> Response:
        """The weights of a layer."""
        number = _number(request, "layer", 0, 0, 10**6)
        return _bytes(*await self._look(views.weights, number, numbering=_numbering(request)))

    async def neuron(self, request: Request) -> Response:
        """One neuron."""
        if "node" in request.query_params:
            node: Any = _number(request, "node", 0, 0, 2**31)
        else:
            node = {name: _number(request, name, 0, 0, 2**31) for name in ("layer", "neuron")}
        return _answer(await self._look(views.neuron, node, numbering=_numbering(request)))

    async def examples(self, request: Request) -> Response:
        """Test examples."""
        first, count = _number(request, "first", 0, 0, 2**31), _number(request, "count", 20, 1, 100)
        wrong = bool(_number(request, "wrong", 0, 0, 1))
        return _answer(await self._look(views.examples, first, count, wrong))

    async def example(self, request: Request) -> Response:
        """One example."""
        given = await _json(request)
        return _answer(await self._look(views.example, given))

    async def plane(self, request: Request) -> Response:
        """Values over the plane."""
        text = request.query_params.get("nodes", "")
        parts = [part for part in text.split(",") if part]
        if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
            raise Refused(400, "nodes: expected ids, separated by commas")
        side = _number(request, "side", 48, 4, 128)
        ids = [int(part) for part in parts]
        return _bytes(*await self._look(views.plane, ids, side, numbering=_numbering(request)))

    async def points(self, request: Request) -> Response:
        """The points of the plane."""
        return _answer(await self._look(views.points))

    async def run(self, request: Request) -> Response:
        """A command of the run."""
        given = await _json(request)
        return await self._change(_command, given)

    async def options(self, request: Request) -> Response:
        """Options of the run."""
        given = await _json(request)
        return await self._change(_change_options, given)

    async def edit(self, request: Request) -> Response:
        """An edit."""
        given = await _json(request)
        await self._look(edit, given)
        return await self._state()

    async def new(self, request: Request) -> Response:
        """Other data, or another network."""
        given = await _json(request)
        return await self._change(build.new, given)

    async def upload(self, request: Request) -> Response:
        """Data from a file."""
        name = request.query_params.get("name", "data.csv")[:200]
        target = request.query_params.get("target")
        content = await _body(request, MOST_BYTES)
        return await self._change(build.upload, content, name, target)

    async def file(self, request: Request) -> Response:
        """A file to take away."""
        name = one_of("file", request.path_params["name"], tuple(take_away.FILES))
        content = await self._look(take_away.file, name)
        disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(content, headers={**HEADERS, **disposition}, media_type=take_away.FILES[name])


def _bytes(header: dict[str, Any], content: bytes) -> Response:
    return Response(
        json.dumps(header).encode() + b"\n" + content, headers=HEADERS, media_type="application/octet-stream"
    )


COMMANDS = {
    "play": ("sparsify", "epochs", "on_nonfinite"),
    "pause": (),
    "step": ("steps",),
    "epoch": ("epochs",),
    "reset": (),
    "back": (),
    "pace": ("steps_per_second",),
}
"""What ``POST /api/run`` can do, and the fields that each takes."""


def _command(session: Session, given: dict[str, Any]) -> None:
    """What `COMMANDS` names."""
    do = one_of("do", given.get("do"), tuple(COMMANDS))
    unknown = sorted(set(given) - {"do", *COMMANDS[do]})
    if unknown:
        raise ValueError(f"{do}: there is no {shown(unknown[0])}")
    with session.lock:  # so that the run is not replaced meanwhile
        session.require_open()
        run = session.run
        if do == "play":
            build.play(session, **{name: given[name] for name in COMMANDS[do] if name in given})
        elif do == "pause":
            run.pause()
        elif do == "step":
            run.play(steps=whole("steps", given.get("steps", 1), 1, 10**6))
        elif do == "epoch":
            run.play(epochs=whole("epochs", given.get("epochs", 1), 1, 10_000))
        elif do == "reset":
            session.reset()
        elif do == "back":
            session.back()
        else:
            pace = given.get("steps_per_second")
            run.set_pace(
                None if pace is None else real("steps_per_second", pace, "a number from 0.1 to 10^6", 0.1, 1e6)
            )
    if do in ("pause", "step"):
        run.wait_until_paused(2)


def _change_options(session: Session, given: dict[str, Any]) -> None:
    unknown = sorted(set(given) - set(OPTIONS))
    if unknown:
        raise ValueError(f"options: expected {', '.join(OPTIONS)}; got {shown(unknown[0])}")
    with session.lock:
        session.run.change(**given)
