"""Our reading of a tokenizer, beside a trainer that uses it for itself."""

import copy
from collections.abc import Iterable
from typing import Any

from actfocus.models.chat import Chat


def quiet_chat(tokenizer: Any, end_ids: Iterable[int] = ()) -> Chat:
    """A `Chat` on a copy, because it gives a tokenizer without a chat template ours.

    Args:
        tokenizer: The trainer's.
        end_ids: Further ids that end a completion; like the end of a turn they write no text.
    """
    chat = Chat(copy.deepcopy(tokenizer))
    chat.end_ids |= set(end_ids)
    return chat
