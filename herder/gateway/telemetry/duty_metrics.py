"""The metrics of the herders' background duties.

Herders have no HTTP of their own: they count in the database, and a gateway
shows what stands there.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from herder.store.duties import Counts


class DutyMetrics(Collector):
    """Shows what all herders counted since the herd began.

    Attributes:
        counts: by duty, as the database had them when it answered last.
    """

    def __init__(self) -> None:
        self.counts: dict[str, Counts] = {}

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, as prometheus_client asks for them."""
        failures = CounterMetricFamily(
            "llama_herder_duty_failures",
            "Failures of herders' background duties: of a batch, or of a row that was left out.",
            labels=["duty"],
        )
        overruns = CounterMetricFamily(
            "llama_herder_duty_overruns",
            "Batches of background duties that took longer than they may.",
            labels=["duty"],
        )
        seconds = SummaryMetricFamily(
            "llama_herder_duty_seconds",
            "Batches of background duties that were done, and the time that all batches took.",
            labels=["duty"],
        )
        for name, counts in self.counts.items():
            failures.add_metric([name], counts.failures)
            overruns.add_metric([name], counts.overruns)
            seconds.add_metric([name], counts.runs, counts.busy_us / 1e6)
        yield from (failures, overruns, seconds)
