"""Teachers of test-time distillation (TT-D): a server, or a second model on this machine.

A teacher writes practice, and says which call it would make itself: practice is then written
around that call with other values. The student never sees a teacher's answer to the request.
What a teacher writes is as unverified as what the model writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from quickstudy import toolcalls
from quickstudy.augmentation.author import OwnWriter, Writer
from quickstudy.config import Config, DecodingConfig
from quickstudy.decoding import Ask, Deadline, Decoder
from quickstudy.errors import ConfigError, RequestError, TeacherFailed
from quickstudy.model import LanguageModel
from quickstudy.types import Message, Reply, Request

_LIKE = "--teacher http://127.0.0.1:8000/v1#qwen2.5-7b"


class Teacher(Writer, Protocol):
    """A writer that can also answer. `write` and `answer` raise only `PracticeFailed`."""

    name: str

    def answer(self, request: Request) -> Reply:
        """The teacher's own reply to a request, greedy."""
        ...

    def for_request(self, seed: int, deadline: Deadline) -> Teacher:
        """The same teacher, bound to one request's seed and time."""
        ...


class LocalTeacher:
    """A second local model: writes as the student would, answers under the tools' grammar."""

    def __init__(
        self,
        decoder: Decoder,
        decoding: DecodingConfig,
        *,
        temperature: float = 0.8,
        seed: int = 0,
        deadline: Deadline | None = None,
    ) -> None:
        self.decoder = decoder
        self.decoding = decoding
        self.name = decoder.model.name
        self.temperature = temperature
        self.deadline = deadline or Deadline()
        self.writer = OwnWriter(decoder, temperature, seed, self.deadline)

    def for_request(self, seed: int, deadline: Deadline) -> LocalTeacher:
        return LocalTeacher(
            self.decoder,
            self.decoding,
            temperature=self.temperature,
            seed=seed,
            deadline=deadline,
        )

    def write(
        self,
        dialogues: Sequence[Sequence[Message]],
        schemas: Sequence[Mapping[str, Any] | None],
        max_new_tokens: int,
        stop: str | None = "\n",
    ) -> list[str]:
        """See `Writer`.

        Raises:
            TeacherFailed: if its chat template refuses the dialogues.
            BudgetSpent: if the request's time ran out.
        """
        try:
            return self.writer.write(dialogues, schemas, max_new_tokens, stop)
        except RequestError as error:
            raise TeacherFailed(f"the teacher {self.name}: {error}") from error

    def answer(self, request: Request) -> Reply:
        """See `Teacher`.

        Raises:
            TeacherFailed: if the request does not fit this model, or the answer is cut off.
            BudgetSpent: if the request's time ran out.
        """
        self.deadline.check()
        try:
            context = self.decoder.model.prefill(request)
        except RequestError as error:
            raise TeacherFailed(f"the teacher {self.name}: {error}") from error
        grammar = self.decoder.grammar(request, self.decoding, context.thinking)
        (answer,) = self.decoder.decode(
            context.prefix,
            [Ask(context.turn, grammar)],
            max_new_tokens=self.decoding.max_new_tokens,
            deadline=self.deadline,
        )
        if not answer.finished:
            raise TeacherFailed(
                f"the teacher {self.name} was cut off at {self.decoding.max_new_tokens} tokens"
            )
        return toolcalls.read(answer.text, request.tools)[0]


def parse_teacher(text: str) -> dict[str, str | None]:
    """Reads `--teacher`: `http://host/v1#model`, or what `--model` takes.

    Returns:
        the fields `url` and `model` of `TeacherConfig`.

    Raises:
        ConfigError: says what to type instead; shows nothing that may be a secret.
    """
    text = text.strip()
    if not text:
        raise ConfigError(f"--teacher is empty; give a model, or {_LIKE}")
    if re.match(r"[\w.-]+:\d+(/|#|$)", text):
        raise ConfigError(f"--teacher wants http:// or https:// before a host: {_LIKE}")
    if "://" not in text:
        return {"url": None, "model": text}
    url, _, model = text.partition("#")
    from quickstudy.teaching.endpoint import base_url

    checked = base_url(url)
    if not model.strip():
        raise ConfigError(f"--teacher wants the model's name after the URL and a #: {_LIKE}")
    return {"url": checked, "model": model.strip()}


def load_teacher(config: Config) -> Teacher:
    """The teacher that the settings name; a local model is loaded, a server is not yet asked.

    Raises:
        ConfigError: if no teacher is named, or its URL is none.
        ModelError: if a local model cannot be loaded.
    """
    teacher = config.teacher
    if teacher.model is None:
        raise ConfigError(f"there is no teacher; name a model, or {_LIKE}")
    if teacher.url is not None:
        # the openai client takes a second to import: not for every cycle
        from quickstudy.teaching.remote import RemoteTeacher

        return RemoteTeacher(
            teacher.url,
            teacher.model,
            api_key_env=teacher.api_key_env,
            timeout=teacher.timeout,
            retries=teacher.retries,
            max_tokens=teacher.max_tokens,
            temperature=config.augmentation.temperature,
            seed=config.seed,
        )
    return LocalTeacher(
        Decoder(LanguageModel.load(teacher.model, config.model)),
        config.decoding,
        temperature=config.augmentation.temperature,
        seed=config.seed,
    )
