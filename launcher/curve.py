"""Listen for those who hold a key, and for nobody else: ZeroMQ with CURVE. Parent only."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import zmq
from zmq import SocketOption
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils import z85

from launcher.errors import HostError


@dataclass(frozen=True)
class Keys:
    """The pair of who listens, and the one pair of all who may call (z85 text)."""

    server_public: bytes
    server_secret: bytes
    client_public: bytes
    client_secret: bytes

    @classmethod
    def random(cls) -> Keys:
        return cls(*zmq.curve_keypair(), *zmq.curve_keypair())

    @classmethod
    def shared(cls, secret: str) -> Keys:
        """Return the keys that everybody derives who knows the secret."""
        server, client = (_secret_key(secret, role) for role in (b"server", b"client"))
        return cls(zmq.curve_public(server), server, zmq.curve_public(client), client)


class Listener:
    """A ROUTER socket that only callers with the key reach."""

    def __init__(
        self, keys: Keys, host: str, port: int | None, options: Mapping[SocketOption, int]
    ) -> None:
        """Listen on a port, a free one by default.

        Raises:
            HostError: the port is taken, the address is not of this host, or a limit is too low.
        """
        self._context = zmq.Context()
        try:
            self._authenticator = ThreadAuthenticator(self._context)
            self._authenticator.start()
            self._authenticator.configure_curve_callback("*", _OneKey(keys.client_public))
            self.socket = self._context.socket(zmq.ROUTER)
        except (zmq.ZMQError, RuntimeError) as error:
            fix = "allow more open files and processes (ulimit -n, ulimit -u)"
            raise HostError(f"cannot listen on {host}: {error}", fix) from error
        self.socket.curve_server = True
        self.socket.curve_publickey = keys.server_public
        self.socket.curve_secretkey = keys.server_secret
        for option, value in {SocketOption.LINGER: 0, **options}.items():
            self.socket.setsockopt(option, value)
        try:
            self.socket.bind(f"tcp://{host}:{port or '*'}")
        except zmq.ZMQError as error:
            self.close()
            raise _refusal(error, host, port) from error
        endpoint = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.port = int(endpoint.rpartition(":")[2])

    def close(self) -> None:
        self.socket.close()
        self._authenticator.stop()
        self._context.term()


class _OneKey:
    """Tells the authenticator which client keys to let in: the one of this job."""

    def __init__(self, public_key: bytes) -> None:
        self._public_key = public_key

    def callback(self, domain: str, key: bytes) -> bool:
        return key == self._public_key


def _secret_key(secret: str, role: bytes) -> bytes:
    return z85.encode(hashlib.blake2b(secret.encode(), digest_size=32, person=role).digest())


def _refusal(error: zmq.ZMQError, host: str, port: int | None) -> HostError:
    if error.errno == errno.EADDRINUSE:
        fix = "name another one with --port, the same on every host"
        return HostError(f"port {port} is taken by another process", fix)
    return HostError(f"cannot listen on {host}: {error.strerror}", "check --port and the network")
