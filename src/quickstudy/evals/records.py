"""What a run leaves behind, field by field: lines of `records.jsonl`, and `summary.json`.

    runs/x/run.json        what the run is: `Run`; a run that resumes must be the same
    runs/x/records.jsonl   one `Record` a line, one for each item and method, as they come
    runs/x/summary.json    a `Summary`, made of the other two without a model

Lines stand alone: what methods share (the draft, the practice) is told in each, which costs
nothing once compressed. Knows nothing about models, benchmarks or methods but their names.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from quickstudy.evals.scoring import ErrorKind


def _encodable(value: Any) -> Any:
    """With `?` for halves of surrogate pairs, which a model can write and UTF-8 cannot."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_encodable(part) for part in value)
    return value


Text = Annotated[str, BeforeValidator(_encodable)]
Calls = Annotated[tuple[dict[str, Any], ...], BeforeValidator(_encodable)]


class Part(BaseModel):
    """A frozen piece of a run's files; unknown keys fail."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Said(Part):
    """An answer: words, calls, or both."""

    content: Text = ""
    tool_calls: Calls = Field((), description='calls as {"name": ..., "arguments": {...}}')


class Practised(Said):
    """A practice example: what was asked (`request`) and how it is to be answered."""

    request: Text
    source: Text = Field(description="who or what wrote it: substitution, call-first, ...")
    reason: Text = Field("", description="why it was rejected; empty if it was kept")


class Choice(Part):
    """One token that the model chose among several; numbers are rounded to 5 digits."""

    token: Text
    kind: str = Field(description="structure, tool_name, argument_name, argument_value or words")
    log_prob: float = Field(description="nats")
    margin: float = Field(description="p1 - p2 among the tokens allowed")
    entropy: float | None = Field(description="nats; null: not measured")


class Sampled(Said):
    """An answer drawn at temperature `Drafted.temperature`."""

    text: Text
    log_prob: float = Field(description="nats, summed over the tokens chosen")
    tokens: int = Field(description="how many tokens were chosen")


class Drafted(Said):
    """The greedy answer that a method went on from, and what estimators of certainty need."""

    text: Text
    finished: bool = Field(description="false: cut off at decoding.max_new_tokens")
    choices: tuple[Choice, ...]
    names: dict[str, float | None] | None = Field(
        None,
        description="log P in nats of opening a call with each listed tool's name. In records of"
        " base and repair, with --probe; null: not asked for, or the draft calls nothing",
    )
    samples: tuple[Sampled, ...] | None = Field(
        None,
        description="other answers drawn for the same prompt. In records of majority, and with"
        " --probe of base and repair; null: not asked for",
    )
    temperature: float | None = Field(None, description="that the samples were drawn at")


class Fault(Part):
    """One way in which an answer is wrong."""

    kind: ErrorKind
    explanation: Text


class Verdict(Part):
    """What the benchmark says of an answer."""

    correct: bool | None = Field(description="null: could not be graded, `unscored` says why")
    unscored: str | None = None
    errors: tuple[Fault, ...] = ()


class Record(Part):
    """A line of `records.jsonl`: one method's answer to one item."""

    benchmark: str
    id: str = Field(description="the item's id, unique within its benchmark")
    place: int = Field(description="where the item stands in the run's seeded order, from 0")
    query: str = Field(description="digest of the query: equal for rows that ask the same")
    verbatim: bool = Field(description="every gold value stands in the request word for word")
    method: str = Field(description="as given to --method, `+repair` included")
    request: Text = Field(description="the last message of the request, for people")
    gold: Calls = Field(description="calls, as in `Said.tool_calls`")
    answer: Said
    verdict: Verdict
    candidates: Calls = Field(
        (),
        description='what the gate weighed, or the votes: {"text": ..., "log_prob": nats or null}',
    )
    certainty: float | None = Field(None, description="of the draft; null: no gate was asked")
    threshold: float | None = Field(None, description="unsure if certainty < threshold")
    triggered: bool = Field(
        False, description="the method went beyond its first answer: the gate said unsure"
    )
    practised: bool = Field(
        False, description="the answer was given under practice, in the weights or the context"
    )
    fallback: Text | None = Field(None, description="why the draft is the answer all the same")
    examples: tuple[Practised, ...] = ()
    rejected: tuple[Practised, ...] = ()
    losses: tuple[float | None, ...] = Field(
        (), description="nats a token, told before each gradient step; null: not finite"
    )
    examples_trained: int = Field(0, description="examples in the adapter's gradient steps")
    gradient_steps: int = 0
    repaired: tuple[Text, ...] = Field((), description="each change of `+repair` as a sentence")
    notes: tuple[Text, ...] = ()
    seconds: dict[str, float] = Field(
        description="by stage (types.STAGES; majority: also `samples`). What methods share (draft,"
        " practice) counts for each of them as if it had made it alone"
    )
    peak_rss_mb: float | None = Field(
        None, description="highest resident memory while it answered; null: cannot be measured"
    )
    draft: Drafted | None = Field(None, description="null: the method makes no draft")

    @property
    def key(self) -> tuple[str, str, str]:
        return self.benchmark, self.id, self.method

    @property
    def total_seconds(self) -> float:
        return sum(self.seconds.values())


class Share(Part):
    """An accuracy among some of the items; null where there are none."""

    n: int
    accuracy: float | None
    ci95: tuple[float, float] | None


class Delta(Part):
    """A method against another on the items that both were graded on."""

    mean: float = Field(description="difference of accuracies, -1 to 1")
    ci95: tuple[float, float] = Field(description="bootstrap over distinct queries")
    mcnemar_p: float = Field(description="exact, two-sided")
    fixed: int = Field(description="items wrong before and right now")
    broken: int = Field(description="items right before and wrong now")


class MethodSummary(Part):
    """`benchmarks[benchmark][method]`. Totals are over the records of that method."""

    n: int = Field(description="items graded")
    unscored: int = Field(description="items that could not be graded; not in n")
    accuracy: float | None = Field(description="a fraction; null where n is 0")
    ci95: tuple[float, float] | None
    delta_vs_base: Delta | None = Field(description="null: base was not run; base itself: zeros")
    delta_vs_best_free: Delta | None = Field(description="against `Summary.best_free[benchmark]`")
    errors: dict[ErrorKind, int] = Field(description="items with that kind of error; every kind")
    official: dict[str, float] = Field(description="the official scores, fractions")
    verbatim: Share
    not_verbatim: Share
    trigger_rate: float = Field(description="share of records with `triggered`")
    practised: int = Field(description="records answered under practice")
    examples_trained: int = Field(description="sum; sft: the rows its one adapter was trained on")
    gradient_steps: int = Field(description="sum; sft: those of its one adapter")
    seconds: float = Field(description="mean seconds an item")
    seconds_median: float
    seconds_by_stage: dict[str, float] = Field(description="mean seconds an item, by stage")
    training_seconds: float = Field(0, description="sft: once, before the first item; else 0")
    peak_rss_mb: float | None = Field(description="the highest of the records")
    fallbacks: dict[str, int] = Field(description="reasons why the draft stood, and how often")


class ModelFacts(Part):
    name: str
    quantisation: str | None = Field(description="the weights' on disk: Q4_K_M, bfloat16, ...")
    sha256: str | None = Field(description="of the weights' file, or of all of a folder's")
    licence: str | None = Field(description="what its file or card says; null: it says nothing")
    dtype: str = Field(description="what it was computed in")


class DataFacts(Part):
    """The rows of one benchmark."""

    sha256: str
    rows: int = Field(description="in the whole set")
    offset: int = Field(0, description="places of the seeded order passed over")
    licence: str = ""


Machine = dict[str, str | int | None]


class Run(Part):
    """`run.json`: what a run is. Methods, benchmarks and rows may be added, nothing changed."""

    model: ModelFacts
    seed: int
    settings: dict[str, dict[str, Any]] = Field(description="method -> its whole Config")
    data: dict[str, DataFacts] = Field(description="benchmark -> its rows")
    trained: dict[str, dict[str, float | None]] = Field(
        default_factory=dict,
        description="methods with one adapter -> examples, gradient_steps, seconds, peak_rss_mb of"
        " its training, by benchmark/method",
    )
    samples: int | None = Field(
        None, description="answers that majority draws; null: not needed, or not yet known"
    )
    versions: dict[str, str] = Field(description="python, quickstudy, torch, ...")
    machine: Machine = Field(description="platform, processor, cores, device, threads")
    other_machines: tuple[Machine, ...] = Field(
        (), description="where other parts were run: seconds of two machines do not compare"
    )


class Summary(Part):
    """`summary.json`."""

    model: ModelFacts
    seed: int
    benchmarks: dict[str, dict[str, MethodSummary]] = Field(description="benchmark -> method")
    best_free: dict[str, str | None] = Field(
        description="benchmark -> the most accurate method that needs no training (FREE)"
    )
    samples: int | None = Field(description="answers that majority drew")
    data: dict[str, DataFacts]
    settings: dict[str, dict[str, Any]] = Field(description="method -> its whole Config")
    versions: dict[str, str]
    machine: Machine
    other_machines: tuple[Machine, ...] = ()
