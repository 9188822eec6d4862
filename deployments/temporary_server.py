"""A Prefect server for one command, started while the command still imports.

Prefect starts a server by itself when a flow runs without one, and does it in a row: first this process
imports the whole server to find the function that starts it, then the new process imports it again, then the
flow begins. Here the server process starts first, on a socket that already listens, and both import at once.
Measured on 2 busy cores with a warm home, process start to end, medians of 3: an empty flow 8.6 s against
14.7 s, with torch and transformers imported 11.3 s against 18.5 s. Starting the server is nearly all import
(3.9 s of 4.4 s), so switching off single services of it changes nothing that can be measured.

The server lives as long as a pipe from its owner stays open, so it outlasts Ctrl-C (the run's last state
still gets recorded) but not the owner, however that one ends. At a normal exit it is stopped after Prefect
has handed over its last events, because task runs are recorded from events. What it says goes to a file: at
a shutdown it prints the traceback of an interrupted write, which it then makes good, and on a full disk
hundreds of lines where the command says one.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from deployments import environment, server_database
from lab.home import OWN_SERVER

START_TIMEOUT_SECONDS = 180.0
"""A fresh home's database is made first: 18 to 59 s were seen on a loaded machine."""
STOP_TIMEOUT_SECONDS = 15.0
RESTART_SECONDS = 60.0
"""How long a server on this machine that does not answer, as one that is restarted, is waited for."""


class TemporaryServer:
    """The server process; made by `start`.

    Parameters
    ----------
    home
        Whose database it serves.
    """

    def __init__(self, home: Path) -> None:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)  # requests queue here until the server takes them
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        read_end, self._owner_end = os.pipe()
        environment.prefect_home(home).mkdir(parents=True, exist_ok=True)
        server_database.provide(home)
        self.log = environment.prefect_home(home) / "temporary-server.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(listener.fileno()), str(read_end)],
                pass_fds=(listener.fileno(), read_end),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={
                    **os.environ,
                    "PREFECT_UI_ENABLED": "0",
                    "PREFECT__SERVER_EPHEMERAL": "1",
                    "PREFECT__SERVER_FINAL": "1",
                },
            )
        listener.close()
        os.close(read_end)

    def wait_ready(self, *, timeout_seconds: float = START_TIMEOUT_SECONDS) -> None:
        """Return when the server answers.

        Raises
        ------
        ChildProcessError
            It ended, or did not answer in time.
        """
        deadline = time.monotonic() + timeout_seconds
        while not environment.answers(self.url, timeout_seconds=max(0.1, deadline - time.monotonic())):
            code = self.process.poll()
            if code is not None:
                raise ChildProcessError(
                    f"the temporary Prefect server ended with code {code}; it says why in {self.log}"
                )
            if time.monotonic() > deadline:
                raise ChildProcessError(
                    f"the temporary Prefect server did not answer within {timeout_seconds:.0f} s; "
                    f"see {self.log}"
                )
            time.sleep(0.05)

    def stop(self) -> None:
        """End the server and wait until it has written what it holds; a second call does nothing."""
        if self._owner_end >= 0:
            os.close(self._owner_end)
            self._owner_end = -1
        try:
            self.process.wait(timeout=STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(home: Path) -> TemporaryServer | None:
    """Start a server for this process and point Prefect, not yet imported, to it; it stops at exit.

    Parameters
    ----------
    home
        The home that `environment.prepare` was called with.

    Returns
    -------
    TemporaryServer or None
        None when there is an API to talk to already, or when Prefect has been imported and so has read
        its settings: then it starts a server by itself.
    """
    if os.environ.get("PREFECT_API_URL") or "prefect" in sys.modules:
        return None
    server = TemporaryServer(Path(home).expanduser().absolute())
    os.environ["PREFECT_API_URL"] = server.url
    os.environ[OWN_SERVER] = "1"
    atexit.register(server.stop)  # Prefect registers its own exits later, and the last one goes first
    return server


def wait_ready(server: TemporaryServer | None) -> None:
    """Return when the server that a command speaks to answers: its own, or one on this machine it was told.

    Raises
    ------
    ChildProcessError
        The command's own server ended, or did not answer in time.
    ConnectionError
        The other one did not; one elsewhere is left to Prefect, which knows about passwords and proxies.
    """
    if server is not None:
        server.wait_ready()
        return
    url = os.environ.get("PREFECT_API_URL", "")
    if urlsplit(url).hostname not in environment.OWN_HOSTS:
        return
    deadline = time.monotonic() + RESTART_SECONDS
    while not environment.answers(url):
        if time.monotonic() > deadline:
            raise ConnectionError(environment.UNREACHABLE.format(url=url))
        time.sleep(0.2)


def _stop_with_owner(read_end: int, stop: Callable[[], None]) -> None:
    """Call `stop` once the other end of the pipe is closed, by its owner or by the kernel."""
    with contextlib.suppress(OSError):
        os.read(read_end, 1)
    stop()


def _serve(listener_fd: int, read_end: int) -> None:
    import uvicorn
    from prefect.server.api.server import create_app

    os.set_inheritable(listener_fd, False)
    os.set_inheritable(read_end, False)

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=_stop_with_owner, args=(read_end, stop), daemon=True).start()
    config = uvicorn.Config(
        create_app(), log_level="error", lifespan="on", access_log=False, timeout_graceful_shutdown=3
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=listener_fd)])


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]))
