"""The interface to language models: one Protocol, and an adapter for any OpenAI-compatible server."""

from stepsearch_data.llm.chat import ChatModel, Message, Reply, Request, Usage

__all__ = ["ChatModel", "Message", "Reply", "Request", "Usage"]
