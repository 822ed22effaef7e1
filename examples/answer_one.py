"""One request through the whole cycle, and what the model taught itself.

python examples/answer_one.py [MODEL]      (default: smollm2, the embedded one)
"""

import sys

from quickstudy import Improver

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "move_event",
            "description": "Move a calendar event to another day",
            "parameters": {
                "type": "object",
                "properties": {
                    "title": {"type": "string", "description": "title of the event"},
                    "day": {"type": "string", "description": "weekday to move it to"},
                    "time": {"type": "string", "description": "new time of day"},
                },
                "required": ["title", "day"],
            },
        },
    }
]

improver = Improver.load(sys.argv[1] if len(sys.argv) > 1 else "smollm2")
answer = improver.answer('Move the event "Dentist" to Friday.', tools=TOOLS)
print("certainty", answer.episode.certainty, "practised", answer.episode.practised)
for example in answer.episode.examples:
    print("taught itself:", example.user_text, "->", example.tool_calls)
print("answer:", answer.content, answer.tool_calls)
