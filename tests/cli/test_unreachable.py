"""What the client says where it does not reach a service: the true cause."""

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.cli.client import ServiceClient
from service.cli.failures import Refusal

NO_HTTP = b"-ERR unknown command\r\n\r\n"
PLAIN = b"HTTP/1.1 404 Not Found\r\nServer: nginx\r\nContent-Length: 2\r\n\r\nno"


@pytest.fixture
def listening() -> Iterator[Callable[[bytes], int]]:
    """Starts something that reads once, answers with bytes and hangs up; gives its port."""
    sockets: list[socket.socket] = []

    def start(answer: bytes) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        sockets.append(server)
        threading.Thread(target=_answer, args=(server, answer), daemon=True).start()
        return int(server.getsockname()[1])

    yield start
    for server in sockets:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def _answer(server: socket.socket, answer: bytes) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(5)
            try:
                connection.recv(4096)
                connection.sendall(answer)
            except OSError:
                continue


def said(url: str, key: str | None = "exp_x") -> str:
    with pytest.raises(Refusal) as refusal, closing(ServiceClient(url, key, 3.0)) as client:
        client.version(1)
    return str(refusal.value)


def test_what_is_no_service_is_named_as_what_it_is(listening: Callable[[bytes], int]) -> None:
    """Another web server, something that speaks no HTTP, nothing at all, plain where TLS was asked."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        free = int(taken.getsockname()[1])

    assert "speaks HTTP but is not Expunge (it calls itself nginx)" in said(f"http://127.0.0.1:{listening(PLAIN)}")
    assert "Something else than HTTP" in said(f"http://127.0.0.1:{listening(NO_HTTP)}")
    assert "ends it without an answer" in said(f"http://127.0.0.1:{listening(b'')}")
    assert "Nothing listens at" in said(f"http://127.0.0.1:{free}")
    assert "does not speak TLS" in said(f"https://127.0.0.1:{listening(PLAIN)}")
    assert "is not known" in said("http://no-such-host.invalid:8080")


def test_tls_is_named(tmp_path: Path) -> None:
    """A certificate that nobody vouches for, and a plain URL to a TLS port."""
    import ssl

    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=here"]
    try:
        subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not here.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(connection, server_side=True) as secure:
                    secure.recv(1)
            except OSError:
                connection.close()

    threading.Thread(target=serve, daemon=True).start()
    try:
        assert "is not trusted" in said(f"https://127.0.0.1:{port}")
        assert "speaks TLS. Begin --url with https://" in said(f"http://127.0.0.1:{port}")
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def test_this_machine_is_reached_without_a_proxy(
    listening: Callable[[bytes], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the environment names, unless it is asked for; elsewhere a proxy that fails is named."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://user:secret@127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)

    assert "calls itself nginx" in said(f"http://localhost:{listening(PLAIN)}")
    elsewhere = said("http://expunge.example:8080")
    monkeypatch.setenv("EXPUNGE_PROXY", "http://127.0.0.1:1")

    assert elsewhere.startswith("The proxy 127.0.0.1:1")
    assert "secret" not in elsewhere
    assert said("http://127.0.0.1:8080").startswith("The proxy 127.0.0.1:1")


@pytest.mark.parametrize("key", ["exp_a b", "exp_ä", "exp_a\nb", "", " \n"])
def test_what_can_be_no_key_is_refused(key: str) -> None:
    """Before anything is sent; the key is not repeated."""
    text = said("http://127.0.0.1:1", key)

    assert text.startswith("The API key")
    assert not key.strip() or key.strip() not in text


def test_a_key_with_a_line_end_is_the_key(listening: Callable[[bytes], int]) -> None:
    """As files and secrets of orchestrators hold it."""
    assert "nginx" in said(f"http://127.0.0.1:{listening(PLAIN)}", "exp_abc\r\n")
