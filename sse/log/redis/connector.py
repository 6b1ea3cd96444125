"""Opens connections to Redis: to a server, or to the master that Sentinels name.

redis-py's ``Connection`` does it (sockets, TLS, AUTH), and is not used beyond that.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

import redis
from redis.connection import Connection, SSLConnection

from .link import COMMAND_TIMEOUT, Link
from .url import RedisUrl

CONNECT_TIMEOUT: Final = 1.0  # seconds; a healthy Redis accepts within a network round trip


class Connector:
    """Opens connections to the master that a URL names."""

    def __init__(self, target: RedisUrl) -> None:
        self.target = target
        self._sentinels = list(target.hosts) if target.service else []

    def connect(self, *, timeout: float = COMMAND_TIMEOUT, patience: float = CONNECT_TIMEOUT) -> Link:
        """Open a connection, authenticated, its database selected.

        timeout: seconds that an answer may take.
        patience: seconds that connecting may take, for the server and for each Sentinel.

        Raises redis-py's ``ConnectionError`` (``REFUSALS`` are such) and ``TimeoutError``.
        """
        target = self.target
        options: dict[str, Any] = {"username": target.username, "password": target.password, "db": target.db}
        options |= {"socket_timeout": timeout, "socket_connect_timeout": patience}
        host, port = self._master(patience) if target.service else target.hosts[0]
        link = self._open_tcp(host, port, **options)
        if target.service:
            self._check_role(link, f"{host}:{port}")
        return link

    def _open_tcp(self, host: str, port: int, **options: Any) -> Link:
        if self.target.tls:
            return _open(SSLConnection, host=host, port=port, **self.target.ssl, **options)
        return _open(Connection, host=host, port=port, **options)

    def _master(self, patience: float) -> tuple[str, int]:
        """Ask one Sentinel after the other, the one that answered last first.

        https://redis.io/docs/latest/develop/reference/sentinel-clients/, steps 1 and 2.
        """
        said = []
        for host, port in list(self._sentinels):
            try:
                address = self._ask(host, port, patience)
            except redis.RedisError as error:
                said.append(f"{host}:{port}: {error}")
                continue
            if address is None:
                said.append(f"{host}:{port} does not know it")
                continue
            self._sentinels.remove((host, port))
            self._sentinels.insert(0, (host, port))
            return address[0].decode(), int(address[1])
        raise redis.ConnectionError(f"no Sentinel names a master of {self.target.service}: {'; '.join(said)}")

    def _ask(self, host: str, port: int, patience: float) -> list[bytes] | None:
        options: dict[str, Any] = {"socket_timeout": patience, "socket_connect_timeout": patience}
        question = [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.target.service)]
        with contextlib.closing(self._open_tcp(host, port, **options)) as link:
            try:
                address: list[bytes] | None = link.call(question)[0]
                return address
            except redis.AuthenticationError:
                if not self.target.password:
                    raise
        # Most set-ups leave Sentinels open; those that do not have the server's own credentials for them.
        options |= {"username": self.target.username, "password": self.target.password}
        with contextlib.closing(self._open_tcp(host, port, **options)) as link:
            address = link.call(question)[0]
            return address

    @staticmethod
    def _check_role(link: Link, where: str) -> None:
        """Step 3 of the same page: during a failover a Sentinel may still name the old master."""
        try:
            role = link.call([("ROLE",)])[0][0]
        except redis.exceptions.NoPermissionError:
            return
        except BaseException:
            link.close()
            raise
        if role != b"master":
            link.close()
            raise redis.ConnectionError(f"{where} is a {role.decode()} now, not the master")


def _open(kind: Any, **options: Any) -> Link:
    # RESP2: its replies are plain lists. No CLIENT SETINFO: two round trips, and a right that an ACL may withhold.
    connection = kind(protocol=2, driver_info=None, **options)
    try:
        connection.connect()
    except redis.ResponseError as error:  # to AUTH or SELECT: this database is not for this user, or there is none
        connection.disconnect()
        raise redis.exceptions.AuthorizationError(str(error)) from error
    except BaseException:
        connection.disconnect()
        raise
    return Link(connection, options["socket_timeout"])
