"""A studio that runs: its server, its address, and its end."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import sys
import threading
import time
import warnings
import webbrowser
from collections.abc import Sequence
from html import escape
from typing import Any

from mlgraph._support.checks import level_outside, shown
from mlgraph._support.installation import install_command
from mlgraph.models.model import Model
from mlgraph.studio.data import arrays
from mlgraph.studio.session import Session

try:
    import uvicorn

    from mlgraph.studio.server import NAME, application, new_token
except ModuleNotFoundError as error:
    what = f"studio: {error.name} is missing: {install_command('starlette', 'uvicorn', extra='studio')}"
    raise ModuleNotFoundError(what, name=error.name) from None


EXPOSED = (
    "host {host}: other computers can reach the studio; whoever has its address, with the token, can change the "
    "network and its data, and plain HTTP shows the token to all who can read the traffic. Where you distrust them, "
    "leave out the host, keep port {port}, and on the other computer run ssh -L {port}:127.0.0.1:{port} {name}"
)
"""What a studio warns of that other computers can reach."""


def names_to_allow(given: Sequence[str]) -> set[str]:
    """Names of hosts in lower case; a ValueError for what cannot be one."""
    if isinstance(given, str) or not all(isinstance(name, str) for name in given):
        raise TypeError(f"allow_hosts: expected a list of names, got {shown(given)}")
    names = {name.lower() for name in given}
    for name in names:
        if not NAME.fullmatch(name):
            raise ValueError(f"allow_hosts: expected the name of a host, such as studio.example, got {shown(name)}")
    return names


class Studio:
    """A studio in the background.

    Attributes
    ----------
    url : str
        The address of the page, with its token.
    session : Session
    warning : str
        What whoever starts it should know of its host; empty if only this computer can reach it.
    """

    def __init__(
        self, session: Session, *, host: str = "127.0.0.1", port: int = 0, allow_hosts: Sequence[str] = ()
    ) -> None:
        self.session, self._token = session, new_token()
        allowed = names_to_allow(allow_hosts)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # By name: only then does asyncio turn Nagle's algorithm off, which delays each answer by 40 ms.
        self._socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            raise OSError(f"{host}, port {port}: {error.strerror or error}") from None
        except OverflowError as error:
            self._socket.close()
            raise ValueError(f"port: expected 0 to 65535, got {port}") from error
        at, self._port = self._socket.getsockname()[:2]
        address = ipaddress.ip_address(at)
        name = socket.gethostname() if address.is_unspecified else f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self._port}/?token={self._token}"
        self.warning = "" if address.is_loopback else EXPOSED.format(host=host or at, port=self._port, name=name)
        hosts = {"localhost", name.lower(), *allowed}
        config = uvicorn.Config(
            application(session, self._token, hosts), log_level="error", access_log=False, lifespan="off", ws="none"
        )
        config.timeout_graceful_shutdown = 2  # a request that takes longer must not keep `close` waiting
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined,unused-ignore]
        self._thread = threading.Thread(target=self._serve, name="mlgraph studio server", daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.01)

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])

    def close(self) -> None:
        """End the run and the server; the model keeps what it learnt."""
        self.session.close()
        self._server.should_exit = True
        self._thread.join()
        with contextlib.suppress(OSError):
            self._socket.close()

    def wait(self) -> None:
        """Wait until the studio is closed, or for Ctrl-C."""
        while self._thread.is_alive():
            self._thread.join(0.2)

    def __enter__(self) -> Studio:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Studio at {self.url}>"

    def _repr_html_(self) -> str:
        return f'<iframe src="{escape(self.url)}" style="width: 100%; height: 800px; border: 0"></iframe>'


def open_studio(
    model: Model,
    x: Any,
    y: Any,
    *,
    test: tuple[Any, Any] | None,
    image: tuple[int, int] | None,
    host: str,
    port: int,
    allow_hosts: Sequence[str],
    open_browser: bool | None,
) -> Studio:
    """See `Model.studio`."""
    if x is None or y is None:
        missing = " and ".join(name for name, part in (("x", x), ("y", y)) if part is None)
        raise TypeError(f"studio: {missing} missing; it trains with data as fit does: net.studio(x, y)")
    data = arrays(x, y, test, image=image)
    studio = Studio(Session(model, data), host=host, port=port, allow_hosts=allow_hosts)
    if studio.warning:
        warnings.warn(f"studio: {studio.warning}", UserWarning, stacklevel=level_outside())
    if ("ipykernel" not in sys.modules) if open_browser is None else open_browser:
        webbrowser.open(studio.url)
    return studio
