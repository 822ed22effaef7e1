"""What Prometheus is told at /metrics. A request's id is on its observations as an exemplar."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from quickstudy.serve.replies import Result
from quickstudy.serve.scheduler import Scheduler

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "quickstudy_requests",
            "Requests by key, HTTP status and how the answer came about",
            ["key", "status", "path"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "quickstudy_request_seconds",
            "From a request's arrival to the end of its answer",
            ["path"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.first_token = Histogram(
            "quickstudy_first_token_seconds",
            "From a request's arrival to the first words or calls of its answer",
            ["path", "stream"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.queued = Histogram(
            "quickstudy_queued_seconds",
            "From a request's arrival to the beginning of work on it",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.stages = Histogram(
            "quickstudy_stage_seconds",
            "Stages of the cycle, pauses for other requests included",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.certainty = Histogram(
            "quickstudy_certainty",
            "Certainty of judged drafts",
            buckets=_SHARES,
            registry=self.registry,
        )
        self.tokens = Counter(
            "quickstudy_tokens",
            "Tokens read (prompt) and given (completion)",
            ["kind"],
            registry=self.registry,
        )
        for name, told, value in (
            ("requests_here", "Requests waiting or in work", lambda: len(scheduler.jobs)),
            ("requests_practising", "Unsure requests", lambda: scheduler.practising),
            ("places", "Requests that may be here at once", lambda: scheduler.places),
        ):
            Gauge(f"quickstudy_{name}", told, registry=self.registry).set_function(value)

    def ended(self, key: str, status: int, path: str, seconds: float, request_id: str) -> None:
        exemplar = {"request_id": request_id}
        self.requests.labels(key, str(status), path).inc(exemplar=exemplar)
        self.seconds.labels(path).observe(seconds, exemplar=exemplar)

    def answered(self, result: Result, first_token: float, stream: bool, request_id: str) -> None:
        cycle, exemplar = result.cycle, {"request_id": request_id}
        self.first_token.labels(cycle.path, str(stream).lower()).observe(first_token, exemplar)
        self.queued.observe(cycle.queued, exemplar)
        for stage, seconds in cycle.seconds.items():
            self.stages.labels(stage).observe(seconds, exemplar)
        if cycle.certainty is not None:
            self.certainty.observe(cycle.certainty, exemplar)
        self.tokens.labels("prompt").inc(result.prompt_tokens)
        self.tokens.labels("completion").inc(result.completion_tokens)

    def page(self, accept: str) -> tuple[bytes, str]:
        """The page and its content type."""
        encode, kind = choose_encoder(accept)
        return encode(self.registry), kind
