"""RFC 3161 time stamps of the log's heads: an authority outside says that a head was there at an instant.

The stamp is of the text that is signed, so it holds whatever signatures are added. Needs the extra `timestamps`.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import httpx
import structlog
from cryptography.x509 import load_pem_x509_certificates

from service.audit import repository
from service.audit.tlog.checkpoint import LogCheckpoint
from service.platform import metrics
from service.platform.clock import Clock
from service.platform.database import Database
from service.settings import Settings, SettingsError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

TIMEOUT_S = 10.0
AGAIN_AFTER_S = 60.0
ANSWER_BYTES_MAX = 65_536
PACKAGE = "rfc3161_client"

log = structlog.get_logger()


class Timestamps:
    """Asks one authority to stamp heads, at most one in an interval; one that is away holds up nobody.

    Args:
        url: where requests are sent.
        roots: certificates that the authority's must lead to.
        clock: measures the intervals.
        interval_s: least time between two heads that are stamped.
    """

    def __init__(self, url: str, roots: list[Certificate], clock: Clock, interval_s: float = 3600.0) -> None:
        self._url, self._roots, self._clock, self._interval_s = url, roots, clock, interval_s
        self._not_before = clock.monotonic()

    @classmethod
    def configured(cls, settings: Settings, clock: Clock) -> Timestamps | None:
        """As the settings say; None where no authority is named.

        Raises:
            SettingsError: the extra is not installed, or the certificates cannot be read.
        """
        if settings.timestamp_url is None:
            return None
        if find_spec(PACKAGE) is None:
            msg = "EXPUNGE_TIMESTAMP_URL needs the extra `timestamps`: pip install 'expunge[timestamps]'."
            raise SettingsError(msg)
        if settings.timestamp_roots is None:
            msg = "EXPUNGE_TIMESTAMP_URL needs EXPUNGE_TIMESTAMP_ROOTS: the certificates that its answers lead to."
            raise SettingsError(msg)
        try:
            roots = load_pem_x509_certificates(settings.timestamp_roots.read_bytes())
        except (OSError, ValueError):
            msg = f"EXPUNGE_TIMESTAMP_ROOTS is refused: {settings.timestamp_roots} holds no certificates (PEM)."
            raise SettingsError(msg) from None
        return cls(settings.timestamp_url, roots, clock, settings.timestamp_seconds)

    async def stamp(self, database: Database, checkpoint: LogCheckpoint) -> None:
        """Have a head stamped where it is time to, and keep the answer beside it once it verifies."""
        if not checkpoint.size or self._clock.monotonic() < self._not_before:
            return
        latest = await database.run_read(repository.latest_timestamp)
        if latest is not None and latest.size >= checkpoint.size:
            return
        try:
            answer = await self._asked(checkpoint.text().encode())
        except (httpx.HTTPError, ValueError) as error:
            log.warning("timestamp.failed", error=type(error).__name__)
            metrics.audit_timestamps_total.labels("refused").inc()
            self._not_before = self._clock.monotonic() + AGAIN_AFTER_S
            return
        await database.run_write(lambda connection: repository.set_timestamp(connection, checkpoint.size, answer))
        metrics.audit_timestamps_total.labels("given").inc()
        self._not_before = self._clock.monotonic() + self._interval_s

    async def _asked(self, text: bytes) -> bytes:
        """The authority's answer (a TimeStampResp in DER), verified; raises HTTPError, ValueError."""
        from rfc3161_client import (
            HashAlgorithm,
            TimestampRequestBuilder,
            VerificationError,
            VerifierBuilder,
            decode_timestamp_response,
        )

        request = TimestampRequestBuilder(data=text, hash_algorithm=HashAlgorithm.SHA256).build()
        headers = {"Content-Type": "application/timestamp-query"}
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as http:
            response = await http.post(self._url, content=request.as_bytes(), headers=headers)
        response.raise_for_status()
        if len(response.content) > ANSWER_BYTES_MAX:
            msg = "The answer is too long."
            raise ValueError(msg)
        builder = VerifierBuilder.from_request(request)
        for root in self._roots:
            builder = builder.add_root_certificate(root)
        try:
            builder.build().verify_message(decode_timestamp_response(response.content), text)
        except VerificationError as error:
            raise ValueError(str(error)) from None
        return response.content
