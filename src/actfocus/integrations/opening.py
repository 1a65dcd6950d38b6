"""Replies whose `<think>` the chat template wrote, as those of DeepSeek-R1 and Qwen3.5 do."""

from collections.abc import Sequence

from actfocus.envs.protocol import REPLY_TAGS
from actfocus.models.chat import Chat

THINK = REPLY_TAGS[0]


def opening_of(chat: Chat, before: Sequence[int], text: str) -> str:
    """`<think>` if the tokens before a reply end with it and the reply has none of its own, else nothing."""
    if text.lstrip().startswith(THINK):
        return ""
    # The tag and the blanks behind it are at most a few tokens, even with one token a byte.
    return THINK if chat.decode(list(before[-16:]))[0].rstrip().endswith(THINK) else ""
