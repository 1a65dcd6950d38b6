"""The player's side of an episode: one model call per turn, in this process.

verifiers' own chat harness installs a program with uv and starts it anew for every turn; a game needs neither
tools nor a sandbox.
"""

from typing import ClassVar

import verifiers.v1 as vf
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from verifiers.v1.dialects.chat import message_to_wire


class GameHarness(vf.Harness[vf.HarnessConfig]):
    """Sends the conversation so far and takes one reply. The call goes through verifiers' interception."""

    APPENDS_SYSTEM_PROMPT: ClassVar[bool] = True
    SUPPORTS_RESUME: ClassVar[bool] = True
    EXECUTES_CODE: ClassVar[bool] = False
    NEEDS_CONTAINER: ClassVar[bool] = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
    ) -> vf.ProgramResult:
        """One turn; verifiers records the reply as it passes, and `resume` brings the conversation here."""
        system, prompt = self.resolve_prompt(data)
        messages = [{"role": "system", "content": system}] if system else []
        if isinstance(prompt, str):
            messages.append({"role": "user", "content": prompt})
        else:
            messages += [message_to_wire(message) for message in prompt or []]
        # To load certificates takes longer than the rest of a turn; on loopback there is nothing to certify.
        http = DefaultAsyncHttpxClient(verify=endpoint.startswith("https:"))
        # verifiers leaves it to the player's client to try again after a passing failure, and this one does.
        async with AsyncOpenAI(base_url=endpoint, api_key=secret, http_client=http) as client:
            await client.chat.completions.create(model=ctx.model, messages=messages)
        return vf.ProgramResult(exit_code=0, stdout="", stderr="")
