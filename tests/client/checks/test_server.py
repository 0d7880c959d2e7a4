"""What ``check`` says of the coordinator's door: certificates made for the test, a server of one call."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from client.checks import server as module
from client.checks.findings import Finding
from client.checks.server import check_server
from client.site import Server

DAY = timedelta(days=1)
NOW = datetime.now(UTC)


def make_certificate(folder: Path, name: str, host: str, *, start: datetime, end: datetime) -> tuple[Path, Path]:
    """A self-signed certificate and its key as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = folder / f"{name}.crt", folder / f"{name}.key"
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key_path.write_bytes(key.private_bytes(pem, form, plain))
    return certificate_path, key_path


def listen(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server of one connection; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(timeout=5)


@pytest.fixture
def good(tmp_path: Path) -> tuple[Path, Path]:
    return make_certificate(tmp_path, "good", "localhost", start=NOW - DAY, end=NOW + 365 * DAY)


@pytest.fixture
def tls_port(good: tuple[Path, Path]) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*good)

    def answer(connection: socket.socket) -> None:
        with suppress(OSError):
            context.wrap_socket(connection, server_side=True).close()

    yield from listen(answer)


@pytest.fixture
def plain_port() -> Iterator[int]:
    yield from listen(lambda connection: connection.sendall(b"220 hello\r\n"))


def door(port: int, roots: Path | None = None, host: str = "localhost") -> Server:
    """The ``server`` section of a site file."""
    return Server.model_validate(
        {"address": f"{host}:{port}", "root_certificates": roots}, context={"folder": Path("/")}
    )


def the_one(findings: Iterator[Finding]) -> Finding:
    (finding,) = findings
    return finding


def test_a_trusted_door(good: tuple[Path, Path], tls_port: int) -> None:
    certificate, address = check_server(door(tls_port, good[0]))
    assert (certificate.result, certificate.found) == ("ok", f"valid until {NOW + 365 * DAY:%Y-%m-%d}")
    assert (address.result, address.found) == ("ok", "answers; TLSv1.3, certificate trusted")


def test_another_name_than_the_certificate_s(good: tuple[Path, Path], tls_port: int) -> None:
    _, address = check_server(door(tls_port, good[0], host="127.0.0.1"))
    assert (address.result, address.code, address.exit_status) == ("fail", "E502", 7)
    assert "certificate refused" in address.found
    assert "127.0.0.1" in address.found


def test_another_authority(tmp_path: Path, tls_port: int) -> None:
    other, _ = make_certificate(tmp_path, "other", "localhost", start=NOW - DAY, end=NOW + 365 * DAY)
    _, address = check_server(door(tls_port, other))
    assert (address.result, address.code) == ("fail", "E502")
    assert address.fix == "Ask the coordinator for the CA file of this address."


def test_a_door_without_tls(good: tuple[Path, Path], plain_port: int) -> None:
    _, address = check_server(door(plain_port, good[0]))
    assert (address.result, address.exit_status) == ("fail", 7)
    assert address.found.startswith("answers, but not with TLS (")


def test_a_plain_door_of_this_machine(plain_port: int) -> None:
    assert the_one(check_server(door(plain_port))).found == "answers; a plain connection, on this machine"


def test_a_closed_port() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        finding = the_one(check_server(door(free.getsockname()[1])))
    assert (finding.result, finding.code, finding.exit_status) == ("fail", "E501", 7)
    assert finding.found == "connection refused"


def test_a_door_that_never_answers(monkeypatch: pytest.MonkeyPatch, good: tuple[Path, Path]) -> None:
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        _, finding = check_server(door(silent.getsockname()[1], good[0]))
    assert (finding.code, finding.found) == ("E501", "no answer in 0.2 s")


@pytest.mark.parametrize("seconds", [0.0, 30.0])
def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    is_over = threading.Event()

    def look_up(*_: object) -> None:
        is_over.wait(seconds)
        raise socket.gaierror

    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    finding = the_one(check_server(door(443, host="fl.example.org")))
    is_over.set()
    assert (finding.code, finding.found) == ("E501", "no machine is known as fl.example.org")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"hello\n", "not a PEM certificate (first line is no PEM title)"),
        (b"", "not a PEM certificate (first line is no PEM title)"),
        (b"-----BEGIN PRIVATE KEY-----\nAA\n", "not a PEM certificate (first line '-----BEGIN PRIVATE KEY-----')"),
        (b"\xff\xfe\x00", "not a PEM certificate (first line is no PEM title)"),
        (None, "No such file or directory"),
    ],
)
def test_a_file_that_is_no_certificate(tmp_path: Path, plain_port: int, content: bytes | None, found: str) -> None:
    path = tmp_path / "ca.crt"
    if content is not None:
        path.write_bytes(content)
    certificate, address = check_server(door(plain_port, path))
    assert certificate.found.startswith(found)
    assert (certificate.result, certificate.code, certificate.exit_status) == ("fail", "E502", 7)
    assert (address.result, address.found) == ("warn", "answers; TLS not tried")


@pytest.mark.parametrize(
    ("start", "end", "result", "found"),
    [
        (-9, -1, "fail", "expired"),
        (1, 9, "fail", "not valid before"),
        (-9, 9, "warn", "expires"),
    ],
)
def test_a_certificate_out_of_its_time(
    tmp_path: Path, plain_port: int, start: int, end: int, result: str, found: str
) -> None:
    path, _ = make_certificate(tmp_path, "late", "localhost", start=NOW + start * DAY, end=NOW + end * DAY)
    certificate, _ = check_server(door(plain_port, path))
    assert (certificate.result, certificate.code) == (result, "E502")
    assert certificate.found.startswith(found)
