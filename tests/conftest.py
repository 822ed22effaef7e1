"""Small real parts: a random two-layer Qwen2 over bytes, and the embedded SmolLM2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from naughty import NaughtyServer
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from quickstudy.model import LanguageModel

TEMPLATE = (
    "{%- set first = messages[0] -%}"
    "<|im_start|>system\n"
    "{{ first.content if first.role == 'system' else 'You help.' }}"
    "{%- if tools %}\n# Tools\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}{% endif -%}"
    "<|im_end|>\n"
    "{%- for m in messages if m.role != 'system' -%}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{%- for call in m.tool_calls or [] -%}"
    '\n<tool_call>\n{"name": "{{ call.function.name }}", "arguments": '
    "{{ call.function.arguments | tojson }}}\n</tool_call>"
    "{%- endfor -%}"
    "<|im_end|>\n"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and the control tokens of Qwen2.5."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in specials])
    tokenizer.add_tokens([AddedToken(t, special=False) for t in ("<tool_call>", "</tool_call>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=TEMPLATE,
    )


def tiny_model(dtype: torch.dtype = torch.float32, seed: int = 0) -> LanguageModel:
    tokenizer = tiny_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Qwen2ForCausalLM(config).to(dtype)
    network.requires_grad_(False)
    return LanguageModel(network, tokenizer, "tiny")


@pytest.fixture
def tiny() -> LanguageModel:
    return tiny_model()


@pytest.fixture(scope="session")
def make_tiny() -> Callable[..., LanguageModel]:
    """`tiny_model`, for files that keep one for several tests."""
    return tiny_model


@pytest.fixture(scope="session")
def smollm2() -> LanguageModel:
    return LanguageModel.load("smollm2")


@pytest.fixture
def naughty_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., NaughtyServer]]:
    """Starts a server that misbehaves: `naughty_server("slow")`, see `naughty.MODES`."""
    for variable in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    servers: list[NaughtyServer] = []

    def start(mode: str = "good", **options: Any) -> NaughtyServer:
        servers.append(NaughtyServer(mode, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(autouse=True)
def _same_random_state() -> Iterator[None]:
    """No test may depend on, or leave behind, the global random state."""
    state = torch.random.get_rng_state()
    yield
    torch.random.set_rng_state(state)
