"""Text to tool calls and back; schema checks; equality. No torch, no model.

A *call format* is how one model family writes calls. Small models speak one natively and are
wrecked by practice in another, so the format of the draft is read here (`read`), and practice
examples are written in it (`write`). Model output is data: `read` never raises.

| format         | looks like                                                 | spoken by         |
|----------------|------------------------------------------------------------|-------------------|
| `fenced`       | a Markdown block ```` ```json ```` with an object or list  | Qwen2.5-Coder     |
| `tagged`       | `<tool_call>` JSON object `</tool_call>`, once a call      | Qwen, Hermes      |
| `json`         | a bare JSON list of objects                                | our own prompt    |
| `llama`        | bare objects with `"parameters"`, separated by `; `        | Llama 3.1 to 3.3  |
| `python`       | `[f(a=1, b="x"), g()]`                                     | Llama 4, Gemma 3  |
| `mistral`      | `[TOOL_CALLS]` and a JSON list                             | Mistral to 2024   |
| `mistral-args` | `[TOOL_CALLS]f[ARGS]` JSON object, once a call             | Mistral from 2025 |

`formats` says how calls are written, `reading` and `pythonic` how they are found in text,
`grammar` and `python_grammar` what constrained decoding allows, `schema` what is wrong with a
call, `equality` which calls are the same, `reasoning` what `<think>` blocks are.

(transformers' own `tokenizer.parse_response` needs a response template in the tokenizer; files
converted from GGUF have none, and it knows no fenced blocks, so reading is done here.)
"""

from quickstudy.toolcalls.equality import canonical, equal, filled, type_of
from quickstudy.toolcalls.formats import COMMON_FORMATS, CallFormat, opening, write
from quickstudy.toolcalls.grammar import Grammar, grammar, value_grammar
from quickstudy.toolcalls.reading import read
from quickstudy.toolcalls.reasoning import ReasoningStart
from quickstudy.toolcalls.schema import problem

__all__ = [
    "COMMON_FORMATS",
    "CallFormat",
    "Grammar",
    "ReasoningStart",
    "canonical",
    "equal",
    "filled",
    "grammar",
    "opening",
    "problem",
    "read",
    "type_of",
    "value_grammar",
    "write",
]
