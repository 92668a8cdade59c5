"""A local page where a network is alive: draw with it, look inside, train, and break it.

    hcrot view                              then open the address that it prints
    hcrot view --runs runs --data flowers   runs of this folder; new ones may learn from these pictures, too

It draws with a small network of digits that comes with hcrot before anything has been trained. It needs the packages of
pip install "hcrot[view]". Only this machine is listened to; with --host 0.0.0.0, others that know the token in the address.
"""

import argparse
from argparse import Namespace
from pathlib import Path

from hcrot.tools.arguments import number

__all__ = ["add_arguments", "run"]

MISSING = 'hcrot view needs starlette, uvicorn and websockets: pip install "hcrot[view]"'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", metavar="FOLDER", type=Path, default=Path("runs"), help="where runs are (default: %(default)s)")
    parser.add_argument("--data", metavar="DATA", nargs="+", default=[], help="folders of pictures to learn from, beside digits and mnist")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen to (default: %(default)s)")
    parser.add_argument("--port", type=number(int, 0), default=8642, help="default: %(default)s; 0: any that is free")
    parser.add_argument("--threads", type=number(int, 1), help="of hcrot's kernels (default: every core)")


def run(options: Namespace) -> int:
    import socket

    try:
        import starlette  # noqa: F401
        import uvicorn
        import websockets  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(MISSING) from error
    import secrets

    import hcrot
    from hcrot.view.server import LOCAL, create_app

    for folder in options.data:
        if not Path(folder).is_dir():
            raise NotADirectoryError(f"--data: there is no folder {folder}")
    if options.threads:
        hcrot.set_num_threads(options.threads)
    try:
        listening = socket.create_server((options.host, options.port), family=socket.AF_INET6 if ":" in options.host else socket.AF_INET)
    except OSError as error:
        where = f"--host {options.host} --port {options.port}"
        raise OSError(f"{where}: {error.strerror}; if another program listens there, try --port 0") from error
    except OverflowError as error:
        raise ValueError(f"--port {options.port}: expected a number up to 65535") from error
    token = None if options.host in LOCAL else secrets.token_urlsafe(16)
    host = f"[{options.host}]" if ":" in options.host else options.host
    address = f"http://{host}:{listening.getsockname()[1]}/"
    app = create_app(options.runs, ["digits", "mnist", *options.data], token)
    print(f"Open {address}{f'?token={token}' if token else ''}    (Ctrl-C ends it; runs that it has started go on)", flush=True)
    config = uvicorn.Config(app, log_level="warning", ws="websockets-sansio", ws_max_size=1_000_000, timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    server.run(sockets=[listening])
    return 0
