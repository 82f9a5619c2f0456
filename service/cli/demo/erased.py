"""The act in which forgotten becomes erased: a compaction over REST, and a receipt that anybody verifies."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.audit.tlog.errors import Unverified
from service.audit.tlog.note import VerifierKey
from service.cli.client import ServiceClient
from service.cli.demo.printing import DemoPrinter
from service.cli.demo.report import ErasedFacts
from service.cli.failures import Refusal
from service.cli.terminal import Terminal, count, duration
from service.receipts.document import Receipt
from service.receipts.verification import Opening, VerifiedReceipt, verify

POLL_S = 0.1
ERASED_WITHIN_S = 600.0


@dataclass(frozen=True)
class ErasedAct:
    """Tells it.

    Args:
        terminal: shows how far the compaction is.
        show: prints.
        client: of the service.
    """

    terminal: Terminal
    show: DemoPrinter
    client: ServiceClient

    def run(self, erasure_id: str, salt: str, user_id: str, item_ids: Sequence[str]) -> ErasedFacts:
        """Erase what is forgotten, and verify the receipt of one erasure.

        Args:
            erasure_id: the erasure whose receipt is shown.
            salt: of its 202, hex.
            user_id: whose interactions it names.
            item_ids: with these items.
        """
        self.show.section("11. Erased: nothing is left in any store")
        self.show.say(
            "Forgetting is fast and approximate. Erasing is exact: a base is trained from scratch on what remains, it "
            "takes over, every older version and copy is purged, and every byte is searched for what is left. The "
            "service does so by itself before the deadline; here it is asked to."
        )
        vkeys = [VerifierKey.parse(each["vkey"]) for each in self.client.log_keys()["keys"]]
        started = time.perf_counter()
        compaction = self._compact()
        state = self.client.erasure(erasure_id)
        seconds = time.perf_counter() - started
        if state["status"] != "erased":
            msg = f"The compaction ended, but the erasure is {state['status']}."
            raise Refusal(msg)
        steps = ", ".join(
            f"{name} {duration(step['seconds'])}" for name, step in compaction["steps"].items() if step.get("seconds")
        )
        self.show.say(
            f"Erased after {duration(seconds)}: {count(compaction['erasures'], 'erasures')}, base "
            f"{compaction['base_before']} -> {compaction['base_after']} ({steps})."
        )
        receipt = self.client.content(f"/v1/erasures/{erasure_id}/receipt.json")
        opening = Opening(salt, [{"user_id": user_id, "item_id": item_id} for item_id in item_ids])
        verified, checked_s = self._verify(receipt, vkeys, erasure_id, opening)
        stores = () if verified is None or verified.evidence is None else stores_of(verified.evidence)
        if stores:
            self.show.residue(stores)
        present = sum(store["verdict"] == "PRESENT" for store in stores)
        self.show.say(
            f"The receipt ({len(receipt):,} bytes) was verified in {duration(checked_s)} without the service: signed, "
            "in the log, about these interactions (the salt of the 202 opens it), and absent from what the base learnt."
            if verified is not None
            else "The receipt does NOT verify."
        )
        return ErasedFacts(
            seconds=seconds,
            base_before=compaction["base_before"],
            base_after=compaction["base_after"],
            receipt_verified=verified is not None,
            residue_present=present,
        )

    def _compact(self) -> Mapping[str, Any]:
        """Ask for a compaction and follow it to its end."""
        state = self.client.compact()
        deadline = time.monotonic() + ERASED_WITHIN_S
        with self.terminal.step("Compacting", "percent", 100) as progress:
            while state["status"] in ("waiting", "running"):
                if time.monotonic() > deadline:
                    msg = f"The compaction did not end within {ERASED_WITHIN_S:g} s; it is at the step {state['step']}."
                    raise Refusal(msg)
                how_far = state.get("progress") or {}
                progress(int(100 * how_far.get("share", 0.0)), 100, state["step"])
                time.sleep(POLL_S)
                state = self.client.compaction(state["id"])
            progress(100, 100, state["status"])
        if state["status"] != "done":
            problem = state.get("problem") or {}
            msg = f"The compaction ended as {state['status']}: {problem.get('detail', state['step'])}"
            raise Refusal(msg)
        return state

    def _verify(
        self, data: bytes, keys: Sequence[VerifierKey], erasure_id: str, opening: Opening
    ) -> tuple[VerifiedReceipt | None, float]:
        started = time.perf_counter()
        try:
            verified = verify(Receipt.parse(data), keys, erasure_id=erasure_id, opening=opening)
        except Unverified as error:
            self.show.say(f"{error} ({error.code})")
            return None, time.perf_counter() - started
        return verified, time.perf_counter() - started


def stores_of(evidence: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """What the search found, store by store."""
    return tuple(evidence["search"]["stores"])
