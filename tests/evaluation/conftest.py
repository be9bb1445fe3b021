"""The world that the trainer's tests have."""

from tests.trainer.conftest import store  # noqa: F401
