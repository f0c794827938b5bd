"""torchgeo's metrics, which it named anew in version 0.9."""

from collections.abc import Mapping
from typing import Any


def scored(metrics: Mapping[str, Any], name: str) -> float:
    """The metric ``<stage>_<Metric>`` over all pixels or samples, or the first that there is of it."""
    stage, metric = name.split('_')
    names = [f'{stage}_{prefix}{metric}' for prefix in ('Binary', 'Multiclass', 'Overall')]
    return float(next(metrics[found] for found in names if found in metrics))
