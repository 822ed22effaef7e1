"""Model families in little: random weights of their architecture, a token a byte, the control
tokens and the chat template (shortened, in tests/templates) of the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
import torch
import transformers
from gguf import GGUFWriter
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GemmaTokenizer, PreTrainedTokenizerFast

from quickstudy.model import LanguageModel, Prefix

TEMPLATES = Path(__file__).parent / "templates"
_CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_LLAMA = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
          "<|python_tag|>")  # fmt: skip
_GEMMA = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>")
_MISTRAL = ("<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]",
            "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]")  # fmt: skip
_TAGS = ("<tool_call>", "</tool_call>")


class Family(NamedTuple):
    """How a family's tokenizer and template look."""

    template: str
    control: tuple[str, ...]
    eos: str
    bos: str | None = None
    plain: tuple[str, ...] = ()  # added tokens that are not special

    def tokenizer(self) -> PreTrainedTokenizerFast:
        template = (TEMPLATES / f"{self.template}.jinja").read_text()
        if self.template.startswith("gemma"):  # sentencepiece: letters, and bytes for all others
            tokens = [*self.control, *(f"<0x{i:02X}>" for i in range(256))]
            tokens += ["\u2581", *map(chr, range(33, 127)), "th"]
            return GemmaTokenizer(
                vocab={token: i for i, token in enumerate(tokens)},
                merges=[("t", "h")],
                extra_special_tokens=list(self.control[5:]),
                chat_template=template,
            )
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {letter: i for i, letter in enumerate([*alphabet, "th"])}
        tokenizer = Tokenizer(models.BPE(vocabulary, [("t", "h")]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([AddedToken(t, special=True) for t in self.control])
        tokenizer.add_tokens([AddedToken(t, special=False) for t in self.plain])
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            eos_token=self.eos,
            bos_token=self.bos,
            pad_token=self.control[0],
            chat_template=template,
        )


FAMILIES = {
    "llama": Family("llama3", _LLAMA, "<|eot_id|>", "<|begin_of_text|>"),
    "qwen2": Family("qwen2", _CHATML, "<|im_end|>", plain=_TAGS),
    "qwen3": Family("qwen3", _CHATML, "<|im_end|>", plain=(*_TAGS, "<think>", "</think>")),
    "gemma3": Family("gemma3", _GEMMA, "<eos>", "<bos>"),
    "gemma2": Family("gemma2", _GEMMA, "<eos>", "<bos>"),
    "mistral": Family("mistral", _MISTRAL, "</s>", "<s>"),
}
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3")


def network(architecture: str, tokenizer: PreTrainedTokenizerFast) -> Any:
    """Random weights, in float32; every norm's weight is random too."""
    kind = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma3": "Gemma3Text"}
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if architecture == "qwen3":
        sizes["head_dim"] = 128  # the only size that transformers knows for GGUF files of Qwen3
    if architecture == "gemma3":  # five layers with a window, then one without
        sizes |= {"num_hidden_layers": 6, "head_dim": 16, "sliding_window": 16}
    else:
        sizes["tie_word_embeddings"] = False
    config = getattr(transformers, f"{kind[architecture]}Config")(**sizes)
    family = kind[architecture].removesuffix("Text")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = getattr(transformers, f"{family}ForCausalLM")(config)
        with torch.no_grad():
            for name, weight in made.named_parameters():
                weight.normal_(0, 0.2 if "norm" in name else 0.1)
    return made.requires_grad_(False).eval()


def save_folder(folder: Path, architecture: str) -> Any:
    """Writes a model folder as `save_pretrained` does; returns the network."""
    tokenizer = FAMILIES[architecture].tokenizer()
    made = network(architecture, tokenizer)
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return made


def save_in_hub_cache(hub: Path, name: str, architecture: str) -> Any:
    """Writes what a download of the hub's repository `name` leaves in the cache folder."""
    repository = hub / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("0" * 40)
    made = save_folder(snapshot, architecture)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    return made


def save_gguf(path: Path, architecture: str, told: str | None = None) -> Any:
    """Writes a GGUF file as llama.cpp's converter does; returns the network."""
    family = FAMILIES[architecture]
    tokenizer = family.tokenizer()
    made = network(architecture, tokenizer)
    config = made.config
    writer = GGUFWriter(path, told or architecture)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    head = made.model.layers[0].self_attn.head_dim
    writer.add_key_length(head)
    writer.add_value_length(head)
    if architecture == "gemma3":
        writer.add_sliding_window(config.sliding_window)
        writer.add_rope_freq_base(config.rope_parameters["full_attention"]["rope_theta"])
    else:
        writer.add_rope_dimension_count(head)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    writer.add_tokenizer_model("llama" if architecture == "gemma3" else "gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([_token_type(token, family) for token in tokens])
    if architecture == "gemma3":
        writer.add_token_scores([-float(i) for i in range(len(tokens))])
    else:
        writer.add_token_merges(["t h"])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    if family.bos:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    names = gguf.get_tensor_name_map(
        gguf.MODEL_ARCH[architecture.upper()], config.num_hidden_layers
    )
    for name, weight in made.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stored = weight.numpy().astype(np.float32)
        if architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = stored.shape[0] // head  # llama.cpp keeps rotary pairs side by side
            stored = stored.reshape(heads, 2, head // 2, -1).swapaxes(1, 2).reshape(stored.shape)
        if architecture == "gemma3" and "norm" in name:
            stored = stored + 1
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), stored.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return made


def _token_type(token: str, family: Family) -> gguf.TokenType:
    if token == "<unk>":
        return gguf.TokenType.UNKNOWN
    if token in family.control:
        return gguf.TokenType.CONTROL
    if token in family.plain:
        return gguf.TokenType.USER_DEFINED
    return gguf.TokenType.BYTE if token.startswith("<0x") else gguf.TokenType.NORMAL


def ids_of(count: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count,), generator=generator).tolist()


def prefix_of(model: LanguageModel, length: int) -> Prefix:
    return model.run(tuple(ids_of(length, length)))
