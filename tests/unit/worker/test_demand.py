"""Targets in surrogate keys."""

import numpy as np

from service.worker.demand import Demand, Ledger, Targets
from service.worker.repository.queue import Target


def test_targets_are_gathered_by_mode_and_kind() -> None:
    """Each kind has its own array."""
    demand = Demand.of(
        [
            Target("forget", "interaction", 1, 2),
            Target("forget", "user", 3, None),
            Target("dislike", "item", None, 4),
        ]
    )

    forget, dislike = demand.of_mode("forget"), demand.of_mode("dislike")
    assert forget.pairs.tolist() == [[1], [2]]
    assert (forget.users.tolist(), forget.items.tolist()) == ([3], [])
    assert dislike.items.tolist() == [4]


def test_targets_whose_id_was_not_known_name_nothing() -> None:
    """No model has learnt what was never recorded."""
    demand = Demand.of(
        [
            Target("forget", "interaction", None, 2),
            Target("forget", "interaction", 1, None),
            Target("forget", "user", None, None),
        ]
    )

    forget = demand.of_mode("forget")
    assert forget.pairs.shape == (2, 0)
    assert not forget.users.size


def test_a_ledger_grows_by_what_is_settled() -> None:
    """Targets, ids and the covered seq go together."""
    ledger = Ledger(Demand(), [], 5)

    ledger.extend(Demand({"forget": Targets(users=np.array([9]))}), ["a"], 7)
    ledger.extend(Demand({"forget": Targets(users=np.array([8]))}), [], 0)

    assert ledger.demand.of_mode("forget").users.tolist() == [9, 8]
    assert (ledger.ids, ledger.seq) == (["a"], 7)
