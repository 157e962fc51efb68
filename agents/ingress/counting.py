"""What is counted of each request: how it was answered, and how long that took."""

from collections.abc import Callable

from engine.runtime.metrics import Metrics


class Counting:
    """Counts requests by route and status."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        # Looking a series up in Prometheus costs more than counting in it.
        self._series: dict[tuple[str, int], tuple[Callable[[], None], Callable[[float], None]]] = {}

    def count(self, route: str, status: int, seconds: float) -> None:
        found = self._series.get((route, status))
        if found is None:
            requests, duration = self._metrics.ingress_requests, self._metrics.ingress_request_seconds
            found = self._series[route, status] = requests.labels(route, status).inc, duration.labels(route).observe
        add_one, observe = found
        add_one()
        observe(seconds)
