"""The figures of the UnlearnRec paper (arXiv 2505.22649, SIGIR 2025), as its tables print them.

Its Gowalla is another file than the one that most papers use, its ML-1M split and its adversarial pairs are its own:
published figures stand beside ours to be compared within each column of their own, never as one scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SOURCE: Final = "UnlearnRec, SIGIR 2025, arXiv 2505.22649"
FULL: Final = "unlearnrec_3"
"""Our method that stands beside the paper's full one: encoder and fine-tuning."""


@dataclass(frozen=True)
class Row:
    """Four figures of a method, as in Tables 2, 3 and 5."""

    recall: float
    ndcg: float
    mi_bf: float
    mi_ng: float


_BACKBONES: Final = ("lightgcn", "simgcl", "sgl")
_TABLE_2: Final = """
ml-1m    retrain      .2287/.2336/.2339 .3209/.3325/.3328 9.7865/6.2314/20.984   6.2327/3.9845/11.344
ml-1m    receraser    .2033/.2106/.2099 .2807/.2978/.2887 1.8103/1.8863/1.9968   1.6734/1.2572/1.6589
ml-1m    grapheraser  .2008/.1995/.1989 .2709/.2752/.2797 1.7327/1.9054/2.1676   1.3160/1.2202/1.8691
ml-1m    ceu          .2219/.2239/.2234 .3152/.3217/.3163 1.0601/1.8883/1.1281   .7462/1.8018/.8396
ml-1m    gif          .2111/.2117/.2177 .2912/.3067/.3031 1.0426/1.5980/1.1063   .9351/1.6629/.8123
ml-1m    unlearnrec_3 .2282/.2336/.2330 .3206/.3323/.3296 6.5071/3.1981/14.0285  4.2766/2.3575/9.3661
gowalla  retrain      .2407/.2605/.2502 .1584/.1703/.1618 7.6745/15.4290/8.7485  3.9265/7.7154/4.4323
gowalla  receraser    .2211/.2367/.2279 .1432/.1453/.1486 1.4975/1.2150/1.7941   .9473/.8916/1.0357
gowalla  grapheraser  .2191/.2238/.2213 .1399/.1453/.1429 1.5865/1.0238/1.8937   .8182/.6511/.9995
gowalla  ceu          .2390/.2516/.2421 .1505/.1618/.1558 1.1470/1.0322/1.1283   .5345/.5644/.5317
gowalla  gif          .2391/.2486/.2394 .1508/.1599/.1524 1.0030/1.0432/1.0076   .5059/.5883/.5108
gowalla  unlearnrec_3 .2398/.2540/.2477 .1545/.1670/.1611 5.3729/4.3520/2.6285   2.8091/1.8075/1.3369
yelp2018 retrain      .0625/.0648/.0635 .0511/.0531/.0512 6.2634/11.1054/9.9890  3.3154/5.8891/4.4316
yelp2018 receraser    .0587/.0614/.0599 .0475/.0501/.0482 1.5473/1.2490/1.4003   .9043/.6777/.6195
yelp2018 grapheraser  .0574/.0610/.0578 .0466/.0478/.0460 1.4832/1.2837/1.3896   .8968/.6873/.6536
yelp2018 ceu          .0597/.0633/.0621 .0493/.0516/.0497 1.1415/1.4724/1.0751   .6055/.7977/.5801
yelp2018 gif          .0580/.0630/.0624 .0461/.0513/.0501 1.0113/1.5555/1.0503   .5188/.8539/.5689
yelp2018 unlearnrec_3 .0617/.0640/.0633 .0501/.0519/.0513 5.6431/6.0197/4.0866   2.9978/2.4956/2.0492
"""
# As printed: Recall@20, NDCG@20, MI-BF, MI-NG; each for the three backbones.


def _table_2() -> dict[tuple[str, str], dict[str, Row]]:
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for line in _TABLE_2.strip().splitlines():
        dataset, method, *columns = line.split()
        by_backbone = zip(*(map(float, column.split("/")) for column in columns), strict=True)
        for backbone, figures in zip(_BACKBONES, by_backbone, strict=True):
            found.setdefault((dataset, backbone), {})[method] = Row(*figures)
    return found


TABLE_2: Final = _table_2()
"""Table 2, by data set and backbone, then by method."""

TABLE_3: Final[dict[str, dict[str, Row]]] = {
    "ml-1m": {
        "no_unlearning_loss": Row(0.2338, 0.3331, 1.5347, 0.5948),
        "no_preserving_loss": Row(0.1863, 0.2682, 4.8245, 3.7239),
        "no_contrast_loss": Row(0.2300, 0.3262, 3.0013, 2.1789),
        "no_fine_tuning": Row(0.2211, 0.3188, 2.2226, 1.6998),
        "full": Row(0.2336, 0.3323, 3.1981, 2.3575),
    },
    "gowalla": {
        "no_unlearning_loss": Row(0.2543, 0.1677, 1.3452, 0.5639),
        "no_preserving_loss": Row(0.17107, 0.1117, 6.8021, 3.3367),
        "no_contrast_loss": Row(0.2507, 0.1633, 4.1979, 1.6625),
        "no_fine_tuning": Row(0.2398, 0.1563, 3.3232, 1.3047),
        "full": Row(0.2540, 0.1670, 4.3520, 1.8075),
    },
}
"""Table 3: what is taken away from UnlearnRec on SimGCL. The row labels were assigned from the paper's discussion."""

TABLE_4: Final[dict[str, dict[str, float]]] = {
    "ml-1m": {
        "retrain": 1208.354, "grapheraser": 993.064, "gif": 8.278, "ceu": 6.943,
        "unlearnrec_0": 0.312, "unlearnrec_1": 7.034, "unlearnrec_2": 14.221, "unlearnrec_3": 21.517,
    },
    "yelp2018": {
        "retrain": 3029.606, "grapheraser": 1834.413, "gif": 146.384, "ceu": 52.216,
        "unlearnrec_0": 0.468, "unlearnrec_1": 19.71, "unlearnrec_2": 39.201, "unlearnrec_3": 56.023,
    },
    "gowalla": {
        "retrain": 839.07, "grapheraser": 795.995, "gif": 131.753, "ceu": 39.089,
        "unlearnrec_0": 0.432, "unlearnrec_1": 3.37, "unlearnrec_2": 6.734, "unlearnrec_3": 10.026,
    },
}  # fmt: skip
"""Table 4: seconds a request on an RTX 3090; the backbone is not named."""

TABLE_5: Final[dict[float, Row]] = {
    0.1: Row(0.2564, 0.1682, 4.8497, 1.1943),
    0.3: Row(0.2543, 0.1653, 5.8521, 1.1670),
    0.5: Row(0.2504, 0.1641, 6.1612, 1.0715),
    0.75: Row(0.2462, 0.1634, 7.0485, 1.0401),
    1.0: Row(0.2411, 0.1615, 7.8845, 1.0283),
    1.5: Row(0.2321, 0.1598, 8.4836, 1.0306),
    2.0: Row(0.2302, 0.1557, 9.7556, 1.0288),
}
"""Table 5, by per cent of real pairs erased. The level is that of Gowalla, SimGCL; neither is named."""
