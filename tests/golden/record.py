"""Records real model output: `python tests/golden/record.py smollm2 > tests/golden/smollm2.json`.

What is read from each output is written beside it; look at it before it is kept.
"""

from __future__ import annotations

import json
import sys

from quickstudy import toolcalls
from quickstudy.decoding import Ask, Deadline, Decoder
from quickstudy.model import LanguageModel
from quickstudy.types import Request

TOOLS = [
    {
        "name": "get_weather",
        "description": "Tells the weather forecast of a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "name of the city"},
                "days": {"type": "integer", "description": "how many days ahead"},
            },
            "required": ["city"],
        },
    },
    {
        "name": "set_timer",
        "description": "Sets a kitchen timer.",
        "parameters": {
            "type": "object",
            "properties": {"minutes": {"type": "number"}, "label": {"type": "string"}},
            "required": ["minutes"],
        },
    },
]
ASKED = (
    "What will the weather be like in Oslo?",
    "Set a timer of 4 minutes for the tea, and tell me the weather in Bergen for the next 3 days.",
    "Who wrote Hamlet?",
)


def main(spec: str) -> None:
    model = LanguageModel.load(spec)
    decoder = Decoder(model)
    outputs = []
    for text in ASKED:
        request = Request.parse(text, TOOLS)
        context = model.prefill(request)
        grammar = toolcalls.grammar(request.tools, model.single_tokens, formats=model.call_formats)
        for constrained in (False, True):
            (said,) = decoder.decode(
                context.prefix,
                [Ask(context.turn, grammar if constrained else None)],
                max_new_tokens=96,
                deadline=Deadline(),
            )
            reply, call_format = toolcalls.read(said.text, request.tools)
            outputs.append(
                {
                    "asked": text,
                    "constrained": constrained,
                    "output": said.text,
                    "format": call_format,
                    "reply": reply.to_json(),
                }
            )
    told = {
        "source": "real output",
        "model": model.name,
        "dtype": str(model.dtype).removeprefix("torch."),
        "command": f"python tests/golden/record.py {spec}",
        "tools": TOOLS,
        "outputs": outputs,
    }
    print(json.dumps(told, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main(sys.argv[1])
