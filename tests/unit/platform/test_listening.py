"""A port whose holder still dies is waited for; one that stays taken is named."""

import socket
import threading

import pytest

from service.platform.listening import CannotListen, PortInUse, listen


def test_a_port_is_taken_as_soon_as_its_holder_lets_go():
    """As when a service is started again while its last process still ends."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        threading.Timer(0.3, holder.close).start()
        with listen("127.0.0.1", port, patience_s=20) as listening:
            assert listening.getsockname()[1] == port


def test_a_port_that_stays_taken_is_named():
    """In the error's text, which a command prints."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(PortInUse, match=str(port)):
            listen("127.0.0.1", port, patience_s=0.2)


@pytest.mark.parametrize(("host", "said"), [("no.such.host.invalid", "not known"), ("192.0.2.1", "192.0.2.1")])
def test_what_waiting_cannot_mend_is_refused_at_once(host: str, said: str):
    """A host that is not known, and an address of another machine."""
    with pytest.raises(CannotListen, match=said) as refused:
        listen(host, 0, patience_s=20)

    assert not isinstance(refused.value, PortInUse)
