"""The coordinator's door: the certificate that the site was given, whether the port answers, whether TLS holds.

Nothing is sent but the handshake.
"""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from client.checks.findings import Finding
from client.site import Server
from lemof_model.errors import NetworkError

TIMEOUT_SECONDS = 3.0
EXPIRES_SOON = timedelta(days=30)
LOOPBACK = ("127.0.0.1", "localhost")


def check_server(server: Server) -> Iterator[Finding]:
    """The certificate file if there is one, then the address."""
    is_trusted = True
    if server.root_certificates is not None:
        finding = _check_certificates(server.root_certificates)
        is_trusted = finding.result != "fail"
        yield finding
    yield _check_address(server, is_trusted=is_trusted)


def _check_certificates(path: Path) -> Finding:
    """Whether the coordinator's CA file can be read and is valid today."""
    name = f"certificate {path.name}"
    try:
        content = path.read_bytes()
    except OSError as error:
        return _failure(name, f"{error.strerror}: {path}", "Set server.root_certificates to the coordinator's CA file.")
    try:
        certificates = x509.load_pem_x509_certificates(content)
    except ValueError:
        return _failure(
            name,
            f"not a PEM certificate (first line {_first_line(content)})",
            "Ask the coordinator for the CA file that starts with -----BEGIN CERTIFICATE-----.",
        )
    now = datetime.now(UTC)
    start = max(certificate.not_valid_before_utc for certificate in certificates)
    end = min(certificate.not_valid_after_utc for certificate in certificates)
    if end < now:
        return _failure(name, f"expired {end:%Y-%m-%d}", "Ask the coordinator for a new CA file.")
    if start > now:
        return _failure(name, f"not valid before {start:%Y-%m-%d}", "Check this machine's clock, then the CA file.")
    if end - now < EXPIRES_SOON:
        return Finding(name, "warn", f"expires {end:%Y-%m-%d}", "Ask the coordinator for a new CA file.", "E502")
    return Finding(name, "ok", f"valid until {end:%Y-%m-%d}")


def _first_line(content: bytes) -> str:
    """What a file that is no certificate starts with; only a PEM title is quoted, for anything else may be data.

    Example:
        >>> _first_line(b"-----BEGIN PRIVATE KEY-----"), _first_line(b"hello"), _first_line(b"")
        ("'-----BEGIN PRIVATE KEY-----'", 'is no PEM title', 'is no PEM title')
    """
    first = content[:60].split(b"\n")[0].strip()
    return repr(first.decode("ascii", "replace")) if first.startswith(b"-----BEGIN ") else "is no PEM title"


def _check_address(server: Server, *, is_trusted: bool) -> Finding:
    """Connect, shake hands where the client would use TLS, and hang up."""
    name = f"server {server.address}"
    host, _, port = server.address.rpartition(":")
    try:
        _resolve(host)
        with socket.create_connection((host, int(port)), timeout=TIMEOUT_SECONDS) as connection:
            if server.root_certificates is None and host in LOOPBACK:
                return Finding(name, "ok", "answers; a plain connection, on this machine")
            if not is_trusted:
                return Finding(name, "warn", "answers; TLS not tried", "Mend the certificate first.", "E502")
            return _shake_hands(name, connection, host, server.root_certificates)
    except socket.gaierror:
        return _failure(name, f"no machine is known as {host}", "Check server.address, and this machine's DNS.", "E501")
    except TimeoutError:
        return _failure(
            name, f"no answer in {TIMEOUT_SECONDS:g} s", f"Does the firewall allow outgoing TCP {port}?", "E501"
        )
    except OSError as error:
        fix = f"Is the server up? Does the firewall allow outgoing TCP {port}?"
        return _failure(name, (error.strerror or str(error)).lower(), fix, "E501")


def _resolve(host: str) -> None:
    """Look a name up, no longer than the timeout; the system's own limit can be half a minute."""
    found: list[object] = []

    def look_up() -> None:
        with suppress(OSError):
            found.extend(socket.getaddrinfo(host, None))

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(TIMEOUT_SECONDS)
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, "unknown name")


def _shake_hands(name: str, connection: socket.socket, host: str, roots: Path | None) -> Finding:
    """A TLS handshake as gRPC makes it."""
    context = ssl.create_default_context(cafile=roots)
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(connection, server_hostname=host) as secure:
            return Finding(name, "ok", f"answers; {secure.version()}, certificate trusted")
    except ssl.SSLCertVerificationError as error:
        found = f"certificate refused: {error.verify_message}"
        return _failure(name, found, "Ask the coordinator for the CA file of this address.")
    except ssl.SSLError as error:
        found = f"answers, but not with TLS ({(error.reason or 'handshake failed').lower().replace('_', ' ')})"
        return _failure(name, found, "Check the port in server.address.")


def _failure(name: str, found: str, fix: str, code: str = "E502") -> Finding:
    return Finding(name, "fail", found, fix, code, NetworkError.exit_status)
