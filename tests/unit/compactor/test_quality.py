"""Whether a new base is good enough beside the old one."""

import pytest

from service.compactor.saga import judge_quality


@pytest.mark.parametrize(
    ("new", "error", "passes"),
    [
        (0.27, 0.001, True),
        (0.2431, 0.0, True),  # a tenth less, and not more
        (0.242, 0.0, False),
        (0.2397, 0.03, True),  # of a hundred people: chance alone does as much
        (0.2397, 0.001, False),  # of many it does not
        (0.10, 0.03, False),
        (0.0, 0.0, False),
    ],
)
def test_chance_is_allowed_for_and_no_more(new: float, error: float, passes: bool) -> None:
    before = {"ndcg_at_20": 0.27, "ndcg_at_20_error": error}
    passed, figures = judge_quality(before, {"ndcg_at_20": new, "ndcg_at_20_error": error}, 0.9)

    assert passed is passes
    assert figures["ratio"] == pytest.approx(new / 0.27)


def test_a_base_from_before_has_no_error_on_record() -> None:
    assert judge_quality({"ndcg_at_20": 0.3}, {"ndcg_at_20": 0.28, "ndcg_at_20_error": 0.001}, 0.9)[0]
    assert judge_quality({}, {"ndcg_at_20": 0.1}, 0.9) == (
        True,
        {
            "limit": 0.9,
            "ndcg_at_20_before": 0.0,
            "ndcg_at_20_after": 0.1,
            "ratio": None,
            "allowed_for_chance": 0.0,
        },
    )
