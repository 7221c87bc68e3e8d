"""Past one machine: tiles and pictures as tasks of a Dask cluster.

Every task carries all that it needs, so that one whose machine dies is run again on another. The network is a task of
its own: it travels once to every machine, and is made again when the machine that held it is gone.
"""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import neurodeploy
from neurodeploy.errors import UserError
from neurodeploy.quantize.network import IntegerNetwork

RETRIES = 10
"""Machines that a task may outlive."""

CONNECT_S = 20
INSTALL = "pip install 'neurodeploy[cluster]'"


class Cluster:
    """A pool (see :class:`neurodeploy.simulate.spread.Pool`) on the workers of a Dask scheduler."""

    local = False

    def __init__(self, client: Any) -> None:
        self._client = client
        self._networks: dict[int, tuple[IntegerNetwork, Any]] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._run = uuid.uuid4().hex

    @property
    def workers(self) -> int:
        """Tasks that run at once."""
        return max(1, sum(int(threads) for threads in self._client.nthreads().values()))

    def submit(self, function: Callable[..., Any], net: IntegerNetwork, *arguments: Any) -> Any:
        """Has ``function(net, *arguments)`` called on a machine of the cluster."""
        with self._lock:
            if id(net) not in self._networks:
                sent = self._client.submit(_same, net, key=self._key("network"), retries=RETRIES)
                # the network itself is kept, too, so that its id stays its own
                self._networks[id(net)] = (net, sent)
            held = self._networks[id(net)][1]
            key = self._key(function.__name__)
        return self._client.submit(function, held, *arguments, key=key, retries=RETRIES)

    def _key(self, what: str) -> str:
        return f"{what}-{self._run}-{next(self._numbers)}"


def _same(net: IntegerNetwork) -> IntegerNetwork:
    return net


@contextmanager
def connected(address: str | None) -> Iterator[Cluster | None]:
    """The cluster whose scheduler listens at ``address`` (``tcp://host:8786``); None for None.

    Raises:
        UserError: dask.distributed is not installed, nobody answers, there is no worker, or the workers have another
            version of this program, or none.
    """
    if address is None:
        yield None
        return
    try:
        import distributed
    except ImportError as error:
        raise UserError("needs dask.distributed", node="--scheduler", instead=INSTALL) from error
    make: Any = distributed.Client
    try:
        client = make(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise UserError(
            "no scheduler answers", node=address, instead="start one with `dask scheduler`, and `dask worker ADDRESS`"
        ) from error
    try:
        _check_workers(client, address)
        yield Cluster(client)
    finally:
        client.close(timeout=5)


def _check_workers(client: Any, address: str) -> None:
    try:
        found = client.run(_version)
    # a worker without the program cannot even look the function up, and says so in its own way
    except Exception as error:
        raise UserError(
            f"its workers cannot run this program: {type(error).__name__}: {error}", node=address, instead=INSTALL
        ) from error
    if not found:
        raise UserError("the scheduler has no worker", node=address, instead=f"dask worker {address}")
    others = sorted({version for version in found.values() if version != neurodeploy.__version__})
    if others:
        raise UserError(
            "the workers have another version of this program",
            node=address,
            have=", ".join(others),
            limit=neurodeploy.__version__,
        )


def _version() -> str:
    return neurodeploy.__version__
