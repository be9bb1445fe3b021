"""The formats: the purpose, columns and rows of each, and how its files are loaded."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson
import pyarrow as pa

from stepsearch_data.exports import marks, preferences, rl, schema, sft, taskset, traces
from stepsearch_data.schemas.rows import Passage
from stepsearch_data.templates.template import Template

Row = dict[str, Any]
Files = Mapping[str, str]  # paths by split


@dataclass(frozen=True)
class Format:
    """A format: `rows` makes the rows of one example, or of one rollout, passage or mark where it is `of` those.

    Trajectories and rollouts are written by split; the others go into one file, named `stem`.
    """

    name: str
    doc: str
    schema: Callable[[Template], pa.Schema]
    rows: Callable[[Any, Template], list[Row]]
    load: Callable[[Files], str]
    suffix: str = "parquet"
    of: Literal["trajectories", "rollouts", "passages", "marks"] = "trajectories"
    stem: str = ""
    apart: bool = False  # each row is a session in a file of its own, in a folder of the split
    with_rejected: bool = False  # its examples need the searches that the vote rejected
    with_passes: bool = False  # its rows say how often a policy passes the question
    tags_only: bool = False  # its trainer reads tags, not tool calls
    asks: bool = False  # its rows hold a question and what scores an answer, whoever has searched
    beside: Callable[[Files, Template], dict[str, bytes]] | None = None  # further files, by name


def _verl(files: Files) -> str:
    """Return the options of verl and Search-R1."""
    options = {"train": "data.train_files", "validation": "data.val_files"}
    return " ".join(f"{options.get(split, f'data.{split}_files')}={shlex.quote(path)}" for split, path in files.items())


def _skyrl(files: Files) -> str:
    options = {"train": "data.train_data", "validation": "data.val_data"}
    return " ".join(
        f"{options.get(split, 'data.val_data')}={shlex.quote(str([path]))}" for split, path in files.items()
    )


def _datasets(files: Files) -> str:
    kind = "json" if next(iter(files.values())).endswith(".jsonl") else "parquet"
    return f'datasets.load_dataset("{kind}", data_files={dict(files)!r})'


def _folder_of(files: Files) -> str:
    return shlex.quote(next(iter(files.values())).rpartition("/")[0] or ".")


def _llama_factory(files: Files) -> str:
    names = {"train": "dataset", "validation": "eval_dataset"}
    chosen = " ".join(f"{names.get(split, 'dataset')}=stepsearch_{split}" for split in files)
    return f"llamafactory-cli train YOURS.yaml dataset_dir={_folder_of(files)} {chosen}"


def _dataset_info(files: Files, template: Template) -> dict[str, bytes]:
    """Return the file that describes the datasets to LLaMA-Factory."""
    names = [name for name in sft.conversations_schema(template).names if name != "conversations"]
    columns = {"messages": "conversations", **{name: name for name in names}}
    entry = {"formatting": "sharegpt", "columns": columns}
    info = {f"stepsearch_{split}": {"file_name": path.rpartition("/")[2], **entry} for split, path in files.items()}
    return {"dataset_info.json": orjson.dumps(info, option=orjson.OPT_INDENT_2) + b"\n"}


def _passage(passage: Passage, _: Template) -> list[Row]:
    """Write a passage as Search-R1's retrieval server reads it: the title in quotes, then the text."""
    return [{"id": passage.passage_id, "contents": f'"{passage.title}"\n{passage.text}'}]


def _corpus(files: Files) -> str:
    return f"stepsearch-data serve --corpus {shlex.quote(next(iter(files.values())))}"


VERL = Format(
    "verl",
    "verl 0.9, RL: prompts, answers, reference queries and gold paragraphs for rewards",
    rl.verl_schema,
    rl.verl,
    _verl,
    asks=True,
)
STEPSEARCH = Format(
    "stepsearch",
    "the StepSearch release's trainer: its columns, nested as its code reads them",
    lambda _: rl.STEPSEARCH,
    rl.stepsearch,
    _verl,
    tags_only=True,
    asks=True,
)
SEARCH_R1 = Format(
    "search-r1",
    "Search-R1's trainer: prompts and answers",
    lambda _: rl.SEARCH_R1,
    rl.search_r1,
    _verl,
    tags_only=True,
    asks=True,
)
VERL_SFT = Format(
    "verl-sft",
    "verl, multi-turn SFT: conversations; it learns the assistant's turns",
    sft.verl_sft_schema,
    sft.verl_sft,
    _verl,
)
TRL_SFT = Format(
    "trl-sft",
    "TRL, SFTTrainer: conversations (tools), or a prompt and completion per turn (tags)",
    sft.trl_sft_schema,
    sft.trl_sft,
    _datasets,
)
TRL_GRPO = Format(
    "trl-grpo",
    "TRL, GRPOTrainer: prompts, and free columns for reward functions",
    lambda _: rl.TRL_GRPO,
    rl.trl_grpo,
    _datasets,
    asks=True,
)
CURRICULUM = Format(
    "curriculum",
    "as trl-grpo, with each question's pass rate, its interval and its band",
    lambda _: rl.CURRICULUM,
    rl.curriculum,
    _datasets,
    with_passes=True,
    asks=True,
)
TRL_DPO = Format(
    "trl-dpo",
    "TRL, DPOTrainer: a good search and one that the vote rejected",
    preferences.trl_dpo_schema,
    preferences.trl_dpo,
    _datasets,
    with_rejected=True,
)
TRL_STEPWISE = Format(
    "trl-stepwise",
    "process reward models, TRL's stepwise type: rounds, each right or wrong",
    lambda _: preferences.TRL_STEPWISE,
    preferences.trl_stepwise,
    _datasets,
    with_rejected=True,
)
LLAMA_FACTORY = Format(
    "llama-factory",
    "LLaMA-Factory, SFT: conversations and their dataset_info.json",
    sft.conversations_schema,
    sft.llama_factory,
    _llama_factory,
    suffix="jsonl",
    beside=_dataset_info,
)
SHAREGPT = Format(
    "sharegpt",
    "Axolotl, Unsloth and others, SFT: conversations of human, gpt and tool",
    sft.conversations_schema,
    sft.sharegpt,
    _datasets,
    suffix="jsonl",
)
SKYRL = Format(
    "skyrl",
    "SkyRL: prompts, the name of the environment, and columns for it",
    lambda _: rl.SKYRL,
    rl.skyrl,
    _skyrl,
    tags_only=True,
    asks=True,
)
VERIFIERS = Format(
    "verifiers",
    "verifiers 0.4: a taskset to install, with a harness that searches your store",
    lambda _: rl.TRL_GRPO,
    rl.trl_grpo,
    lambda files: f"cd {_folder_of(files)} && uv pip install . && vf-eval {taskset.NAME} …",
    suffix="jsonl",
    beside=taskset.package,
    asks=True,
)
TRACES = Format(
    "traces",
    "the Hub's trace viewer: what policies did, a session a file, each turn a call of `search`",
    lambda _: traces.SESSION,
    traces.session,
    lambda files: f"hf upload USER/NAME {_folder_of(files)} . --repo-type dataset",
    suffix="jsonl",
    of="rollouts",
    apart=True,
)
ATIF = Format(
    "atif",
    "Harbor and others, the Agent Trajectory Interchange Format: what policies did, with all rewards",
    traces.atif_schema,
    traces.atif,
    _datasets,
    suffix="jsonl",
    of="rollouts",
)
CORPUS = Format(
    "corpus",
    "the passages, for Search-R1's retrieval server and `serve`: id, contents",
    lambda _: pa.schema({"id": schema.TEXT, "contents": schema.TEXT}),
    _passage,
    _corpus,
    suffix="jsonl",
    of="passages",
    stem="corpus",
)
MARKS_JSONL = Format(
    "marks-jsonl",
    "your marks with their trajectories; `mark --import` reads them",
    lambda _: marks.JSONL,
    marks.jsonl,
    marks.load_jsonl,
    suffix="jsonl",
    of="marks",
    stem="marks",
)
ARGILLA = Format(
    "argilla",
    "Argilla 2, to label on: marked trajectories as records, and settings.json",
    lambda _: marks.ARGILLA,
    marks.argilla,
    marks.load_argilla,
    suffix="jsonl",
    of="marks",
    stem="records",
    beside=marks.argilla_settings,
)
LABEL_STUDIO = Format(
    "label-studio",
    "Label Studio, to label on: marked trajectories as tasks, and config.xml",
    lambda _: marks.LABEL_STUDIO,
    marks.label_studio,
    marks.load_label_studio,
    suffix="json",
    of="marks",
    stem="tasks",
    beside=marks.label_config,
)
