"""An agent loop for data of the user's own: one reply to a prompt, as `<think>…</think><answer>…</answer>`.

    actor_rollout_ref.rollout.agent.default_agent_loop=tags

verl's `single_turn_agent` asks for the reply, and verl's reward function judges it: only the spans are ours.
"""

from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

from actfocus.envs.protocol import REPLY_TAGS
from actfocus.focus import Role
from actfocus.integrations.verl.loop import chat_of
from actfocus.integrations.verl.spans import KEY, spans_of
from actfocus.models.chat import Chat
from actfocus.rollout.sampler import read_reply


class TagsLoop(SingleTurnAgentLoop):  # type: ignore[misc, unused-ignore]
    """verl's loop of one turn; a malformed reply, such as one cut by its length, has neither span."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """Ask for a reply; arguments and errors are those of verl's loop."""
        output = await super().run(sampling_params, **kwargs)
        roles = reply_roles(chat_of(self.tokenizer), output.prompt_ids, output.response_ids)
        output.extra_fields[KEY] = spans_of(roles)
        return output


def reply_roles(chat: Chat, prompt_ids: list[int], response_ids: list[int]) -> list[int]:
    """One `Role` per token of a response.

    Args:
        chat: The tokenizer.
        prompt_ids: Where they end with `<think>` and the reply has none of its own, it begins inside of it.
        response_ids: As verl cut them.
    """
    written = len(response_ids)
    # The server also ends a reply at ids that the model's generation config alone names.
    if written and _ends_reply(chat, response_ids[-1]):
        written -= 1
    reply = response_ids[:written]
    roles = read_reply(chat, reply, prompt_ids).roles
    return roles + [Role.OTHER] * (len(response_ids) - written)


def _ends_reply(chat: Chat, token_id: int) -> bool:
    """Whether a last token is no text; in some vocabularies `</answer>` is a special token as well."""
    return token_id in chat.special_ids and chat.decode([token_id])[0] not in REPLY_TAGS
