"""uvicorn around the application, and how it ends.

At SIGTERM or Ctrl-C the server takes no more requests (503, and /health/ready says so), lets what
is in work finish within the grace time, cancels the rest (503), and exits with status 0. A second
signal ends the grace time.
"""

from __future__ import annotations

import logging
import socket
import sys
import time
from types import FrameType

import uvicorn

from quickstudy.config import ServeConfig
from quickstudy.errors import ConfigError
from quickstudy.improve import Improver
from quickstudy.openmp import release_team
from quickstudy.serve.app import serve
from quickstudy.serve.engine import Engine
from quickstudy.serve.logs import log_to
from quickstudy.serve.scheduler import Scheduler
from quickstudy.teaching.teacher import Teacher, load_teacher

log = logging.getLogger(__name__)
_FLUSH_SECONDS = 5  # in which the last answers have to be sent


class Server(uvicorn.Server):
    """Serves one improver. `run` returns when all is over."""

    def __init__(self, improver: Improver, teacher: Teacher | None = None) -> None:
        self.limits: ServeConfig = improver.config.serve
        engine = Engine(improver, teacher)
        served = serve(engine)
        self.scheduler: Scheduler = served.scheduler
        self.name = engine.names.name
        self._ends: float | None = None
        super().__init__(
            uvicorn.Config(
                served.app,
                host=self.limits.host,
                port=self.limits.port,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_FLUSH_SECONDS,
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # not uvicorn's way, which would raise the signal again at the end
        now = time.monotonic()
        if self._ends is None:
            self.scheduler.drain()
            self._ends = now + self.limits.grace
        else:
            self._ends = now

    async def on_tick(self, counter: int) -> bool:
        if self._ends is not None and (not self.scheduler.jobs or time.monotonic() >= self._ends):
            self.scheduler.cancel_all()
            self.should_exit = True
        return await super().on_tick(counter)


def run(improver: Improver) -> None:
    """Serves until a signal comes.

    Raises:
        ConfigError, ModelError: if the settings name a teacher that cannot be had, or an address
            that is taken.
    """
    config, limits = improver.config, improver.config.serve
    named = config.teacher.model is not None and improver.teacher is None
    teacher = load_teacher(config) if named else None
    log_to(sys.stderr)
    if not limits.keys and limits.host not in ("127.0.0.1", "::1", "localhost"):
        log.warning("everybody who reaches this address may ask: there are no keys")
    server = Server(improver, teacher)
    with _bound(limits.host, limits.port) as listening:
        host, port = limits.host, listening.getsockname()[1]
        log.info("serving %s at http://%s:%d/v1", server.name, host, port)
        release_team()  # the model was loaded in this thread, and others compute with it
        server.run(sockets=[listening])


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"cannot listen at {host}:{port}: {reason}; try another --port") from None
