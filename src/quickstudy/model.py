"""The one place that touches transformers: load, render, prefill, forward passes.

A request is split where the conversation begins: the *prefix* (system prompt and tool list) is
run once and its key/value cache kept; everything after it is the *turn*. Draft, practice and
final answer all continue from the same prefix cache. `DynamicCache` grows by concatenation, so
a fork shares the prefix's tensors and never changes them.
"""

from __future__ import annotations

import copy
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from quickstudy import attention, catalog, checkpoint, gguf, hub, narrow
from quickstudy.chat import Chat, Style
from quickstudy.config import ModelConfig
from quickstudy.errors import ModelError, RequestError
from quickstudy.toolcalls import CallFormat, ReasoningStart
from quickstudy.types import Message, Request, Tool

# Whether this thread computes under an adapter
adapted: ContextVar[bool] = ContextVar("adapted", default=False)
# Which rows of the batch that this thread decodes are still in it; None: all
remaining: ContextVar[Tensor | None] = ContextVar("remaining", default=None)


@dataclass(frozen=True)
class Prefix:
    """The shared start of a request: its tokens and their key/value cache (one row)."""

    ids: tuple[int, ...]
    cache: DynamicCache

    def fork(self, rows: int = 1) -> DynamicCache:
        """A cache that continues this one in `rows` rows; the prefix itself stays as it is."""
        forked = _forked(self.cache)
        if rows > 1:
            for layer in forked.layers:
                if layer.keys is not None and layer.keys.numel():
                    layer.keys = layer.keys.expand(rows, -1, -1, -1)
                    layer.values = layer.values.expand(rows, -1, -1, -1)
        return forked


@dataclass(frozen=True)
class Start:
    """Where the rows of a batch begin, each after its own prefix.

    `seen` is (rows, longest prefix) bool, which cached places are real; None: all are. Shorter
    prefixes are padded on the left.
    """

    prefixes: tuple[Prefix, ...]
    cache: DynamicCache
    seen: Tensor | None

    def fork(self) -> DynamicCache:
        """A cache that a pass may grow."""
        return _forked(self.cache)

    def select(self, rows: Sequence[int]) -> Start:
        """The same for some of the rows, at the same places: what is longest may not be there."""
        prefixes = tuple(self.prefixes[row] for row in rows)
        if list(rows) == list(range(len(self.prefixes))):
            return self
        if self.seen is None:
            return start(prefixes)
        chosen = torch.tensor(rows, device=self.seen.device)
        cache = self.fork()
        for layer in cache.layers:
            layer.keys = layer.keys.index_select(0, chosen)
            layer.values = layer.values.index_select(0, chosen)
        return Start(prefixes, cache, self.seen[chosen])


def start(prefixes: Sequence[Prefix]) -> Start:
    """Where a batch begins whose rows continue these prefixes; rows that share one share it."""
    first = prefixes[0]
    if all(prefix is first for prefix in prefixes) or not any(p.ids for p in prefixes):
        return Start(tuple(prefixes), first.fork(len(prefixes)), None)
    longest = max(prefixes, key=lambda prefix: len(prefix.ids))
    joined = longest.fork()
    for index, layer in enumerate(joined.layers):
        # the cache of an empty prefix may have no layers yet
        parts = [prefix.cache.layers[index] if prefix.ids else None for prefix in prefixes]
        layer.keys = _left_padded([part and part.keys for part in parts], layer.keys)
        layer.values = _left_padded([part and part.values for part in parts], layer.values)
    places = torch.arange(len(longest.ids), device=joined.layers[0].keys.device)
    empty = torch.tensor([len(longest.ids) - len(p.ids) for p in prefixes], device=places.device)
    seen = places >= empty.unsqueeze(1)
    return Start(tuple(prefixes), joined, None if bool(seen.all()) else seen)


class PrefixCache:
    """Prefixes kept for requests to come, up to so many tokens; least recently used out first."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self._kept: OrderedDict[tuple[int, ...], Prefix] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, ids: tuple[int, ...]) -> Prefix | None:
        with self._lock:
            if ids in self._kept:
                self._kept.move_to_end(ids)
            return self._kept.get(ids)

    def keep(self, prefix: Prefix) -> None:
        if len(prefix.ids) > self.tokens:
            return
        with self._lock:
            self._kept[prefix.ids] = prefix
            while sum(map(len, self._kept)) > self.tokens:
                self._kept.popitem(last=False)


@dataclass(frozen=True)
class Context:
    """A request ready to be answered: shared prefix in the cache, the turn as tokens.

    `style` and `thinking` say how the template told it; other turns under it are told alike.
    """

    request: Request
    prefix: Prefix
    turn: tuple[int, ...]
    style: Style = "native"
    thinking: bool = False


class LanguageModel:
    """A chat model: weights that are never written, tokenizer, chat template."""

    def __init__(self, network: Any, tokenizer: Any, name: str, prefix_cache: int = 0) -> None:
        _check_layers(network, name)
        self.network: Any = network.eval()
        self.prefixes = PrefixCache(prefix_cache)
        attention.install(self.network)
        # The last positions of a longer pass are a strided view, for which torch multiplies in
        # batches and copies the whole output matrix first: 0.6 s a pass on a 0.5B model's CPU
        # decoding. A fresh copy of the few positions avoids it.
        self.network.get_output_embeddings().register_forward_pre_hook(
            lambda _, inputs: (inputs[0].clone(memory_format=torch.contiguous_format),)
        )
        self.tokenizer = tokenizer
        self.name = name
        if tokenizer.chat_template is None:
            raise ModelError(
                f"{name} has no chat template: it is a base model; use its -Instruct variant"
            )
        self.chat = Chat(tokenizer)

    @classmethod
    def load(cls, spec: str, config: ModelConfig | None = None) -> LanguageModel:
        """Loads a hub id, a folder, a GGUF file, `smollm2` or `auto`.

        Raises:
            ModelError: with what was tried and what to type instead.
        """
        config = config or ModelConfig()
        if config.threads:
            torch.set_num_threads(config.threads)
        device = _device(config.device)
        dtype = _dtype(config.dtype, device)
        source = catalog.resolve(spec, config.cache_dir)
        try:
            with _Quiet():
                folder = source.path or hub.download(source.name)
                if source.kind == "gguf":
                    folder = gguf.converted(folder, dtype, config.cache_dir.expanduser())
                checkpoint.check(folder)
                tokenizer = AutoTokenizer.from_pretrained(folder)
                network, loading = AutoModelForCausalLM.from_pretrained(
                    folder, dtype=dtype, use_safetensors=True, output_loading_info=True
                )
            checkpoint.check_loaded(spec, loading)
            network.requires_grad_(False)
            model = cls(network.to(device), tokenizer, source.name, config.prefix_cache)
            int8 = config.decoding_weights == "int8"
            if int8 and device.type != "cpu":
                raise ModelError("model.decoding_weights=int8 is for a CPU; use auto or own")
            if int8 or (config.decoding_weights == "auto" and narrow.pays(model.network)):
                narrow.install(model.network, ordered=not int8)
            return model
        except ModelError:
            raise
        except Exception as error:  # broken files raise whatever their readers raise
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise ModelError(f"cannot load {spec!r}: {reason}") from error

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.network.parameters()).device
        return device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = next(self.network.parameters()).dtype
        return dtype

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        ids = {
            self.end_of_turn,
            self.tokenizer.eos_token_id,
            *_as_list(self.network.generation_config.eos_token_id),
        }
        return frozenset(i for i in ids if i is not None)

    @cached_property
    def end_of_turn(self) -> int:
        """The token by which the model's own template ends an assistant's turn.

        Not always the tokenizer's eos: Gemma ends turns with `<end_of_turn>`, and its eos is
        `<eos>`. Where the template ends a turn with no control token it is the eos.
        """
        control = frozenset(self.single_tokens.values())
        ending = self.encode(self.chat.turn_end)
        return next((i for i in ending if i in control), self.tokenizer.eos_token_id)

    @cached_property
    def single_tokens(self) -> dict[str, int]:
        """Texts that the tokenizer keeps whole (control tokens, `<tool_call>`) and their ids."""
        return {str(t): i for i, t in self.tokenizer.added_tokens_decoder.items()}

    @cached_property
    def context_length(self) -> int:
        config = self.network.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", 1 << 30))

    @property
    def call_formats(self) -> tuple[CallFormat, ...]:
        """The call formats that a draft may be decoded in."""
        return self.chat.call_formats

    def reasoning_start(self, thinking: bool) -> ReasoningStart:
        """Whether an answer may begin with a block of reasoning."""
        return self.chat.reasoning_start(thinking)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of what the model is: its configuration, its text side, samples of each weight.

        Names are no identity: a folder's weights may be trained on and saved again.
        """
        shape = {**self.network.config.to_dict(), "_name_or_path": None}
        template, vocabulary = self.tokenizer.chat_template, self.tokenizer.get_vocab()
        told = [shape, template, sorted(vocabulary.items())]
        digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode())
        for name, weight in self.network.state_dict().items():
            flat = weight.detach().reshape(-1)
            sample = flat[:: max(1, len(flat) // 64)].cpu().contiguous()
            digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
            digest.update(sample.view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    # --- text and tokens ---

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def answer_ids(self, text: str, thinking: bool = False) -> list[int]:
        """An assistant's answer as tokens, closed by the end-of-turn token.

        Where the template has opened a block of reasoning, the answer closes it first.
        """
        opened = self.reasoning_start(thinking) == "opened"
        return [*self.encode(f"\n</think>\n\n{text}" if opened else text), self.end_of_turn]

    @property
    def template_knows_tools(self) -> bool:
        return self.chat.knows_tools

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        call_format: CallFormat = "json",
        thinking: bool = False,
    ) -> list[int]:
        """The prompt's tokens, up to where the assistant begins, in the first style that goes.

        Raises:
            RequestError: if the template refuses the messages in every style.
        """
        return self._render(messages, tools, call_format, thinking)[0]

    def _render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        call_format: CallFormat = "json",
        thinking: bool = False,
        style: Style | None = None,
    ) -> tuple[list[int], Style]:
        refusal: RequestError | None = None
        for chosen in [style] if style else self.chat.styles(tools):
            try:
                text = self.chat.render(messages, tools, chosen, call_format, thinking)
                return self.encode(text), chosen
            except RequestError as error:
                refusal = refusal or error  # what is wrong with the messages as they are
        assert refusal is not None
        raise refusal

    def prompt(self, request: Request, thinking: bool = False) -> tuple[list[int], Style]:
        """A request's whole prompt, and the style it is told in.

        Raises:
            RequestError: if the template refuses it or it is longer than the model's context.
        """
        ids, style = self._render(request.messages, request.tools, thinking=thinking)
        if len(ids) >= self.context_length:
            raise RequestError(
                f"the request has {len(ids)} tokens and the model reads {self.context_length}; "
                "shorten the conversation or list fewer tools"
            )
        return ids, style

    # --- forward passes ---

    @torch.no_grad()
    def prefill(self, request: Request, thinking: bool = False) -> Context:
        """Runs the shared prefix once, or takes it from the requests before.

        Args:
            thinking: asks a template that knows `enable_thinking` for a block of reasoning.

        Raises:
            RequestError: if the prompt is longer than the model's context.
        """
        ids, style = self.prompt(request, thinking)
        system = [m for m in request.messages if m.role == "system"]
        # any other conversation will do, as long as it parts from this one at its first letter
        first = next(m.content for m in request.messages if m.role != "system")
        probe = Message("user", "!" if first.lstrip().startswith("?") else "?")
        other, _ = self._render([*system, probe], request.tools, "json", thinking, style)
        shared = self.shared([ids, other])
        if adapted.get():  # what an adapter makes of it is nobody else's
            prefix = self.run(shared)
        elif (kept := self.prefixes.get(shared)) is not None:
            prefix = kept
        else:
            prefix = self.run(shared)
            self.prefixes.keep(prefix)
        return Context(request, prefix, tuple(ids[len(shared) :]), style, thinking)

    def shared(self, prompts: Sequence[Sequence[int]]) -> tuple[int, ...]:
        """What prompts have in common at their beginning, up to a control token."""
        single = frozenset(self.single_tokens.values())
        first = prompts[0]
        length = min(_boundary(first, other, single) for other in prompts[1:])
        return tuple(first[:length])

    @torch.no_grad()
    def run(self, ids: tuple[int, ...]) -> Prefix:
        """Runs the beginning of prompts; nothing for no tokens."""
        prefix = self.empty_prefix()
        if ids:
            self.network(self._tensor([ids]), past_key_values=prefix.cache, logits_to_keep=1)
        return Prefix(ids, prefix.cache)

    @cached_property
    def window(self) -> int | None:
        """How far sliding-window layers look back, in tokens; None: no layer has a window."""
        config = self.network.config.get_text_config()
        kinds = getattr(config, "layer_types", None) or ["sliding_attention"]
        return getattr(config, "sliding_window", None) if "sliding_attention" in kinds else None

    def empty_prefix(self) -> Prefix:
        # A cache that follows the config forgets what a window has passed, and counts padding as
        # passed: a padded row would lose tokens of its own. So all layers keep all.
        return Prefix((), DynamicCache(config=None if self.window else self.network.config))

    def turn(
        self, context: Context, messages: Sequence[Message], call_format: CallFormat | None
    ) -> list[int] | None:
        """The tokens that follow the context's prefix for another conversation under it.

        None if that conversation does not begin with the prefix.
        """
        ids, _ = self._render(
            messages,
            context.request.tools,
            call_format or "json",
            context.thinking,
            context.style,
        )
        start = len(context.prefix.ids)
        return ids[start:] if tuple(ids[:start]) == context.prefix.ids else None

    def forward(
        self,
        feeds: Sequence[Sequence[int]],
        cache: DynamicCache | None,
        seen: Tensor | None,
        keep: int,
    ) -> tuple[Tensor, Tensor]:
        """One pass over a ragged batch, left-padded so that every row ends at the same place.

        Args:
            feeds: new tokens, a list a row (may be empty for a row that has ended).
            cache: what the rows saw before; grows by this pass.
            seen: (rows, cached) bool, which cached places are real; None means all are.
            keep: how many positions at the end get logits.

        Returns:
            logits (rows, keep, vocabulary) and the new `seen` (rows, cached + new).
        """
        rows, width = len(feeds), max(len(feed) for feed in feeds)
        past = cache.get_seq_length() if cache is not None else 0
        if seen is None:
            seen = torch.ones(rows, past, dtype=torch.bool, device=self.device)
        pad = self.tokenizer.pad_token_id or 0
        ids = self._tensor([[pad] * (width - len(feed)) + list(feed) for feed in feeds])
        real = self._tensor([[0] * (width - len(feed)) + [1] * len(feed) for feed in feeds]).bool()
        before = seen.sum(dim=1, keepdim=True)
        seen = torch.cat([seen, real], dim=1)
        # without padding the plain causal mask holds, which has faster kernels
        padded = not bool(seen.all())
        positions = (before + real.cumsum(dim=1) - 1).clamp(min=0)
        output = self.network(
            ids,
            past_key_values=cache,
            use_cache=cache is not None,
            attention_mask=self._mask(seen, width) if padded else None,
            position_ids=positions,
            logits_to_keep=keep,
        )
        return output.logits, seen

    def answer_log_probs(
        self,
        begin: Start | None,
        contexts: Sequence[Sequence[int]],
        answers: Sequence[Sequence[int]],
    ) -> tuple[Tensor, Tensor]:
        """log P of given answers after given contexts; logits only where an answer token is told.

        Returns:
            log-probabilities (rows, longest answer), right-aligned, in nats, float32; and the
            bool mask of real answer tokens, same shape.
        """
        longest = max(len(answer) for answer in answers)
        feeds = [[*c, *a] for c, a in zip(contexts, answers, strict=True)]
        cache, seen = (begin.fork(), begin.seen) if begin else (None, None)
        logits, _ = self.forward(feeds, cache, seen, keep=longest + 1)
        targets = self._tensor([[0] * (longest - len(a)) + list(a) for a in answers])
        mask = self._tensor([[0] * (longest - len(a)) + [1] * len(a) for a in answers]).bool()
        logits = logits[:, :-1].float()  # the token at t is told by the logits at t - 1
        told = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
        return told, mask

    def _mask(self, seen: Tensor, width: int) -> Tensor | dict[str, Tensor]:
        """The attention mask of a padded pass.

        Without windows the network makes its own of `seen`. With windows it would count padding
        as tokens that the window passes, so both masks are made here, of true positions:
        (rows, 1, width, cached + new), added to the attention scores.
        """
        if self.window is None:
            return seen.long()
        places = seen.cumsum(dim=1) - 1
        back = places[:, -width:, None] - places[:, None, :]  # how far a token lies behind
        full = seen[:, None, :] & (back >= 0)
        lowest = torch.finfo(self.dtype).min
        full_mask, sliding_mask = (
            torch.zeros(allowed.shape, dtype=self.dtype, device=self.device)
            .masked_fill(~allowed, lowest)
            .unsqueeze(1)
            for allowed in (full, full & (back < self.window))
        )
        if getattr(self.network.config.get_text_config(), "layer_types", None) is None:
            return sliding_mask
        return {"full_attention": full_mask, "sliding_attention": sliding_mask}

    def _tensor(self, rows: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor(rows, dtype=torch.long, device=self.device)


def _boundary(ids: Sequence[int], other: Sequence[int], single: frozenset[int]) -> int:
    """Length of the prefix both share, cut back to a control token.

    A control token always ends what the tokenizer may merge, so the text before the cut has the
    same tokens whatever follows.
    """
    shared = 0
    for left, right in zip(ids, other, strict=False):
        if left != right:
            break
        shared += 1
    for cut in range(shared, 0, -1):
        if ids[cut - 1] in single:
            return cut
    return 0


def _forked(cache: DynamicCache) -> DynamicCache:
    """A cache of the same tensors; growing it leaves the first as it is."""
    forked = copy.copy(cache)
    forked.layers = [copy.copy(layer) for layer in cache.layers]
    return forked


def _left_padded(parts: Sequence[Tensor | None], longest: Tensor) -> Tensor:
    """Cached keys or values of several prefixes as one batch: (rows, heads, longest, width)."""
    joined = longest.new_zeros(len(parts), *longest.shape[1:])
    for row, part in zip(joined, parts, strict=True):
        if part is not None and part.numel():
            row[:, row.shape[1] - part.shape[2] :] = part[0]
    return joined


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _check_layers(network: Any, name: str) -> None:
    """Raises ModelError if a layer keeps other than keys and values, which prefixes are made of."""
    kinds = set(getattr(network.config.get_text_config(), "layer_types", None) or ())
    others = sorted(kinds - {"full_attention", "sliding_attention", "chunked_attention"})
    if others or network._is_stateful:
        raise ModelError(
            f"{name} has layers that shared prefixes cannot be cut out of"
            f" ({', '.join(others) or 'they keep a running state'}); use a model with full or"
            " sliding attention in every layer, like Qwen2.5, Qwen3, Llama 3 or SmolLM2"
        )


def _device(name: str) -> torch.device:
    if name != "auto":
        try:
            device = torch.device(name)
            torch.empty(0, device=device)
            return device
        except (RuntimeError, AssertionError) as error:
            raise ModelError(f"model.device={name!r} cannot be used here: {error}") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        # without these units a CPU emulates bfloat16, slower than float32
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        fast = True
    return torch.bfloat16 if fast else torch.float32


class _Quiet:
    """Silences transformers' progress bars and notes while it loads."""

    def __enter__(self) -> None:
        self.level = transformers.logging.get_verbosity()
        self.bars = transformers.utils.logging.is_progress_bar_enabled()
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        transformers.logging.set_verbosity(self.level)
        if self.bars:
            transformers.logging.enable_progress_bar()
