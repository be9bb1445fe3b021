"""An episode in which a checkpoint called a tool, as the messages of a conversation, which `score` reads."""

from __future__ import annotations

from stepsearch_data.templates.template import Message
from stepsearch_data.trainer.forms import ToolCalls
from stepsearch_data.trainer.search_env import Episode


def messages_of(episode: Episode, form: ToolCalls) -> list[Message]:
    """Return the messages of an episode, after its prompt, as a server's would be.

    A turn that searches has a call, with what the policy was shown if it was. One that does not is kept as it was
    written, also where its call was wrong: the user says what is wrong, so that no reader takes it for a search.
    That no search is left is the user's message too, so that it is not read as a part of a document.
    """
    messages: list[Message] = []
    begun, left = 0, form.no_search_left()
    for start, end in episode.observations:
        wrote, seen = form.message(episode.text[begun:start]), episode.text[start:end]
        shown: Message = {"role": "user", "content": seen.removesuffix(left).strip()}
        for call in wrote.get("tool_calls", ()):
            call["id"] = f"call_{len(messages)}"
            shown |= {"role": "tool", "tool_call_id": call["id"]}
        messages += [wrote, shown]
        if seen.endswith(left):
            messages.append({"role": "user", "content": left.strip()})
        begun = end
    if begun < len(episode.text):
        messages.append(form.message(episode.text[begun:]))
    return messages
