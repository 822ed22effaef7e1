"""Unsure drafts call the tool that fits the request best, without any practice.

What `augmentation.reconsider` tells practice, given as the answer: so it is seen apart what
learning adds to it.
"""

from __future__ import annotations

from dataclasses import replace

from quickstudy.augmentation.reconsider import reconsidered
from quickstudy.decoding import Deadline, Draft
from quickstudy.methods.gated import Gated, SecondTry


class Reconsider(Gated):
    name, stage = "reconsider", "answer"

    def second(self, draft: Draft) -> SecondTry:
        decoder, most = self.bench.decoder, self.config.decoding.max_new_tokens
        calls = reconsidered(decoder, draft, most, Deadline())
        return SecondTry(replace(draft.reply, tool_calls=calls))
