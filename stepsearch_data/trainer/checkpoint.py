"""What a training leaves in its folder and goes on from: checkpoints, and a line of metrics per update."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stepsearch_data.core.atomic import part_of, place, write_whole
from stepsearch_data.trainer.metrics import Metrics
from stepsearch_data.trainer.run_folder import BEST, METRICS, UPDATE, Best, checkpoint_name

# Tied weights are saved under one name, as they should be; accelerate would say so at every checkpoint.
logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)


class Checkpoints:
    """The checkpoints of a run, each of which appears only when it is whole; the newest `keep` and the best stay."""

    def __init__(self, output: Path, keep: int, accelerator: Accelerator) -> None:
        self._output, self._keep, self._accelerator = output, keep, accelerator

    def save(
        self,
        update: int,
        policy: Callable[[], PreTrainedModel],
        tokenizer: PreTrainedTokenizerBase,
        best: Best | None,
        beside: Callable[[Path], None],
    ) -> Path:
        """Write the checkpoint of an update, unless it is there; return its folder. Every process calls it.

        `best` is named in the run's folder, once its checkpoint is there. `beside` adds files of each process.
        """
        folder = self._output / checkpoint_name(update)
        self._accelerator.wait_for_everyone()  # so that all processes see the same folders
        if not folder.exists():
            self._write(folder, update, policy, tokenizer, beside)
        if self._accelerator.is_main_process:
            if best and (self._output / best.checkpoint).is_dir():  # an earlier version did not keep it
                write_whole(self._output / BEST, best.model_dump_json().encode())
            for old in sorted(self._output.glob("checkpoint-*"))[: -self._keep]:
                if best is None or old.name != best.checkpoint:
                    shutil.rmtree(old)
        self._accelerator.wait_for_everyone()
        return folder

    def _write(
        self,
        folder: Path,
        update: int,
        policy: Callable[[], PreTrainedModel],
        tokenizer: PreTrainedTokenizerBase,
        beside: Callable[[Path], None],
    ) -> None:
        part = part_of(folder)
        main, wait = self._accelerator.is_main_process, self._accelerator.wait_for_everyone
        if main:
            shutil.rmtree(part, ignore_errors=True)
        wait()
        self._accelerator.save_state(str(part / "state"))
        whole = policy()
        beside(part)
        wait()
        if main:
            whole.save_pretrained(part / "policy")
            tokenizer.save_pretrained(part / "policy")
            (part / UPDATE).write_bytes(orjson.dumps({"update": update}))
            place(part, folder)

    def load(self) -> int | None:
        """Restore weights, optimiser and random state of the newest checkpoint.

        Returns its update, or None where there is no checkpoint.
        """
        found = sorted(self._output.glob("checkpoint-*"))
        if not found:
            return None
        self._accelerator.load_state(str(found[-1] / "state"))
        update: int = orjson.loads((found[-1] / UPDATE).read_bytes())["update"]
        return update


@contextmanager
def repeatable() -> Iterator[None]:
    """Put torch's random state back where the block fails, so that a resumed run repeats it."""
    cpu, cuda = torch.get_rng_state(), torch.cuda.get_rng_state_all()
    try:
        yield
    except BaseException:
        torch.set_rng_state(cpu)
        torch.cuda.set_rng_state_all(cuda)
        raise


def append_metrics(output: Path, metrics: Metrics) -> None:
    """Add a line to the `metrics.jsonl` of a run."""
    with open(output / METRICS, "ab") as file:
        file.write(orjson.dumps(metrics) + b"\n")


def drop_metrics_after(output: Path, update: int) -> None:
    """Remove the lines of updates that will be repeated."""
    if (file := output / METRICS).exists():
        lines = file.read_bytes().splitlines(keepends=True) if update else []
        whole = [line for line in lines if line.endswith(b"\n")]  # a full disk may leave half a line
        write_whole(file, b"".join(line for line in whole if orjson.loads(line)["update"] <= update))


def read_held_out(output: Path, accelerator: Accelerator) -> list[Best]:
    """Return the held-out exact match of each evaluation that the run has recorded. Every process calls it."""
    told: list[list[Best]] = [[]]
    if accelerator.is_main_process and (file := output / METRICS).exists():
        rows = map(orjson.loads, file.read_bytes().splitlines())
        told = [[Best(update=row["update"], eval_em=row["eval_em"]) for row in rows if "eval_em" in row]]
    found: list[Best] = broadcast_object_list(told)[0]  # only the main process may have the file
    return found
