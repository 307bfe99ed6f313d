"""``python -m mlgraph.studio``: a page in the browser that shows a network while it trains, and edits it."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Any


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mlgraph.studio", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument(
        "model", nargs="?", type=Path, help="a session or a model that was saved; by default a new 784-32-10 network"
    )
    parser.add_argument(
        "--data", type=Path, help="a folder of IDX or .npy files, or a .csv, .npz or .npy; MNIST by default"
    )
    parser.add_argument("--target", help="the column of a .csv to learn; by default the last one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; by default this computer alone")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name by which browsers may address this computer; may be given several times",
    )
    parser.add_argument("--port", type=int, default=0, help="port; 0, the default, takes a free one")
    parser.add_argument("--no-open", action="store_true", help="do not open the browser")
    parser.add_argument(
        "--out", type=Path, default=Path("studio-run"), help="folder for the model (default: %(default)s)"
    )
    args = parser.parse_args(arguments)
    if not 0 <= args.port < 2**16:
        parser.error(f"--port: expected 0 to 65535, got {args.port}")
    try:
        from mlgraph.studio.studio import Studio
    except ImportError as error:
        return complain(str(error).removeprefix("studio: "))
    try:
        args.out.mkdir(parents=True, exist_ok=True)  # now, and not when there is something to lose
        session = _session(args)
        studio = Studio(session, host=args.host, port=args.port, allow_hosts=args.allow_host)
    except (ValueError, TypeError, OSError) as error:
        return complain(" ".join(str(error).split()))
    print(studio.url, flush=True)
    if studio.warning:
        print(f"warning: {studio.warning}", file=sys.stderr)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if not args.no_open:
        webbrowser.open(studio.url)
    stop.wait()
    studio.close()
    from mlgraph.studio import session_file, take_away

    try:
        model = take_away.network(session)
    except ValueError as error:
        print(f"note: {error}; it is saved as it is", file=sys.stderr)
        model = session.model
    try:
        model.save(args.out / "model.npz")
        session_file.save(session, args.out / "session.npz")
    except OSError as error:
        return complain(str(error))
    print(f"saved {args.out / 'model.npz'}; python -m mlgraph.studio {args.out / 'session.npz'} goes on")
    return 0


def _session(args: argparse.Namespace) -> Any:
    import mlgraph
    from mlgraph.studio import build, data as sources, session_file
    from mlgraph.studio.session import Session

    if args.model is not None and args.model.is_file() and session_file.kind(args.model) == "session":
        if args.data is not None:
            raise ValueError(f"--data: {args.model} is a session, which has its data; leave out --data")
        saved = session_file.read(args.model)
        session = Session(saved.model, saved.data)
        session_file.resume(saved, session)
        return session
    data = sources.from_path(args.data, args.target)
    if args.model is None:
        return Session(build.network(data, [32]), data)
    model = mlgraph.load(args.model)
    if model.graph.n_inputs != data.x.shape[1]:
        raise ValueError(f"{args.model}: has {model.graph.n_inputs} inputs, the data {data.x.shape[1]} columns")
    return Session(model, data.in_units())  # in which it was saved


def complain(text: str) -> int:
    """Print an error, and return the exit status of errors."""
    print(f"python -m mlgraph.studio: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
