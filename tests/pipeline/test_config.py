"""One configuration from four layers, every mistake named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.llm.settings import LlmSettings
from stepsearch_data.pipeline.config import RunConfig, RunSettings, load_config
from stepsearch_data.search.kinds import kind_of, kinds
from stepsearch_data.stages import STAGES


def load(
    file: Path | None = None, settings: tuple[str, ...] = (), environment: dict[str, str] | None = None, **options: Any
) -> RunConfig:
    return load_config(STAGES, file, settings, environment or {}, **options)


def setting(config: RunConfig, stage: str, key: str) -> object:
    return cast("object", getattr(config.stages[stage], key))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text('store = "out"\n[run]\nworkers = 4\n[filter]\nk = 4\n')
    return path


def refusal(file: Path | None = None, *settings: str, **environment: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(file, settings, environment)
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message
    return f"{caught.value.message} {caught.value.hint}"


def test_without_anything_there_are_defaults() -> None:
    config = load()
    assert config.store == Path("store")
    assert config.sources == ()
    assert setting(config, "filter", "k") == 3
    assert config.run.workers >= 1


def test_flag_beats_environment_beats_file_beats_default(file: Path) -> None:
    environment = {"STEPSEARCH_FILTER_K": "5", "STEPSEARCH_RUN_WORKERS": "2"}
    assert setting(load(file), "filter", "k") == 4
    assert setting(load(file, (), environment), "filter", "k") == 5
    assert setting(load(file, ("filter.k=2",), environment), "filter", "k") == 2
    assert [load(file).run.workers, load(file, (), environment).run.workers] == [4, 2]


def test_the_same_order_holds_for_the_store(file: Path, tmp_path: Path) -> None:
    environment = {"STEPSEARCH_STORE": "env"}
    assert load(file).store == tmp_path / "out"
    assert load(file, (), environment).store == Path("env")
    assert load(file, (), environment, store=Path("flag")).store == Path("flag")


def test_sources_on_the_command_line_replace_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('sources = ["jsonl=a.jsonl"]')
    assert load(tmp_path / "run.toml", sources=["musique=sample"]).sources == ("musique=sample",)


def test_paths_of_a_run_file_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        'sources = ["jsonl=a.jsonl", "jsonl=sample_mine.jsonl", "jsonl=/abs.jsonl", "musique=sample", "2wiki=hf:a/b"]'
    )
    assert load(tmp_path / "run.toml").sources == (
        f"jsonl={tmp_path / 'a.jsonl'}",
        f"jsonl={tmp_path / 'sample_mine.jsonl'}",
        "jsonl=/abs.jsonl",
        "musique=sample",
        "2wiki=hf:a/b",
    )


def test_files_that_a_stage_names_are_relative_to_the_run_file(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        '[quality]\neval_sources = ["musique=dev.jsonl", "2wiki=hf:a/b"]\nrollouts = "rolled.jsonl"\nvalidation = 0.1\n'
    )
    config = load(tmp_path / "run.toml")
    assert setting(config, "quality", "eval_sources") == (f"musique={tmp_path / 'dev.jsonl'}", "2wiki=hf:a/b")
    assert setting(config, "quality", "rollouts") == tmp_path / "rolled.jsonl"
    assert setting(config, "quality", "eval_single_hop_ids") is None
    flags = load(tmp_path / "run.toml", ("quality.rollouts=here.jsonl",))
    assert setting(flags, "quality", "rollouts") == Path("here.jsonl")


def test_evaluation_data_of_no_known_kind_is_refused() -> None:
    assert "unknown kind" in refusal(None, 'quality.eval_sources=["squad=dev.json"]')


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("filter.k=2", 2),
        (" filter.k = 2 ", 2),
        ("filter.rule=any", "any"),
        ('filter.rule="any"', "any"),
        ("filter.rule=2", 2),
        ("load.answer_in_paragraph=false", False),
        ("retrieve.containment=0.5", 0.5),
    ],
)
def test_set_takes_toml_values_and_bare_words(text: str, value: object) -> None:
    stage, _, rest = text.strip().partition(".")
    assert setting(load(settings=(text,)), stage, rest.partition("=")[0].strip()) == value


def test_the_last_set_wins() -> None:
    assert setting(load(settings=("filter.k=1", "filter.k=2")), "filter", "k") == 2


@pytest.mark.parametrize("text", ["filter", "filter.k", "k=3", "=", ""])
def test_set_of_another_form_is_refused(text: str) -> None:
    assert "expected STAGE.KEY=VALUE" in refusal(None, text)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("filter.kk=1", "filter.kk: unknown key; did you mean k?"),
        ("trajectories.document=1", "did you mean documents?"),
        ("filtre.k=1", "filtre: unknown key; did you mean filter?"),
        ("run.worker=1", "did you mean workers?"),
        ("filter.zzzzzz=1", "filter.zzzzzz: unknown key; known: k, valid, rule, quorum"),
        ("corpus.zzz=1", "corpus.zzz: unknown key; known: none"),
        ("store.x=1", "store"),
        ("sources.x=1", "sources"),
    ],
)
def test_an_unknown_key_is_refused_with_advice(text: str, advice: str) -> None:
    assert advice in refusal(None, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("filter.k=three", "filter.k: Input should be a valid integer"),
        ("filter.k=0", "filter.k: Input should be greater than or equal to 1 (got 0)"),
        ("filter.valid=silver", "got 'silver'"),
        ("run.max_reject_share=2", "run.max_reject_share: Input should be less than or equal to 1"),
        ("engines.use=[]", "engines.use"),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_given(text: str, said: str) -> None:
    assert said in refusal(None, text)


def test_every_mistake_is_named_at_once() -> None:
    message = refusal(None, "filter.kk=1", "run.workers=0", "retrieve.top_k=0")
    assert all(key in message for key in ("filter.kk", "run.workers", "retrieve.top_k"))


def test_the_file_is_named_with_its_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[filtre]\nk = 1\n")
    assert refusal(path).startswith(f"{path}: filtre: unknown key; did you mean filter?")
    path.write_text("k = [")
    assert "is not valid TOML" in refusal(path)
    path.write_bytes(b"\xff")
    assert "is not valid TOML" in refusal(path)
    assert "cannot read the run file" in refusal(tmp_path / "none.toml")
    assert "cannot read the run file" in refusal(tmp_path)


@pytest.mark.parametrize("content", ["store = 5", "sources = 5", "sources = [5.0, {}]", "run = 5", "filter = []"])
def test_a_file_of_wrong_types_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.toml").write_text(content)
    assert str(tmp_path / "run.toml") in refusal(tmp_path / "run.toml")


@pytest.mark.parametrize("name", ["STEPSEARCH_FILTRE_K", "STEPSEARCH_FILTER", "STEPSEARCH_", "STEPSEARCH_STORES"])
def test_a_variable_that_sets_nothing_is_refused(name: str) -> None:
    assert name in refusal(None, **{name: "1"})


def test_a_wrong_value_of_a_variable_is_refused() -> None:
    assert "filter.k" in refusal(None, STEPSEARCH_FILTER_K="many")


def test_other_variables_are_left_alone() -> None:
    assert load(None, (), {"STEPSEARCHING": "1", "STEPSEARCH_CONFIG": "read elsewhere", "FILTER_K": "9"}) == load()


def test_a_variable_that_is_set_to_nothing_is_not_set() -> None:
    assert load_config(STAGES, environment={"STEPSEARCH_FILTER_K": "", "STEPSEARCH_STORE": ""}).store == Path("store")


def test_engines_have_sections_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        '[engines]\nuse = ["bm25", "wiki"]\n[engines.bm25]\nk1 = 0.9\n'
        '[engines.wiki]\nkind = "bm25"\nindex = "wiki.index"\n'
    )
    own, wiki = load(path).engines
    assert (own.name, own.config.k1, own.config.b, own.index) == ("bm25", 0.9, 0.75, None)
    assert (wiki.name, wiki.kind.name, wiki.config.k1, wiki.index) == ("wiki", "bm25", 1.2, tmp_path / "wiki.index")
    (changed,) = load(path, ('engines.use=["bm25"]', "engines.bm25.k1=2")).engines
    assert (changed.name, changed.config.k1) == ("bm25", 2.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('engines.use=["bm26"]', "there is no search engine 'bm26' did you mean bm25?"),
        ('engines.use=["bm25", "bm25"]', "the engine bm25 is named twice"),
        ("engines.bm25.k2=1", "engines.bm25.k2: unknown key; did you mean k1?"),
        ("engines.bm25.b=2", "engines.bm25.b: Input should be less than or equal to 1 (got 2)"),
        ("engines.bm25=2", "engines.bm25: unknown key"),
    ],
)
def test_mistakes_in_engines_are_explained(text: str, said: str) -> None:
    assert said in refusal(None, text)


DEEP = "[" * 2_000 + "]" * 2_000


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("1" + "0" * 30, "filter.k is a number of more than 64 bits"),
        ("9" * 5_000, "filter.k: a number in it has thousands of digits"),
        ("0x" + "f" * 5_000, "filter.k is a number of more than 64 bits"),
        (DEEP, "filter.k: it is nested too deep"),
        ("[" * 30 + "]" * 30, "is nested too deep"),
        ('"a\\u0000b"', "filter.k holds a NUL"),
        ("x" * 5_000, "filter.k: Input should be a valid integer"),
        ('["' + "x" * 5_000 + '"]', "filter.k: Input should be a valid integer"),
    ],
    ids=["large", "long", "hexadecimal", "deep", "deeper than anything is", "NUL", "text", "list"],
)
def test_what_no_setting_can_hold_is_refused_in_a_short_line(value: str, said: str, tmp_path: Path) -> None:
    assert said in refusal(None, f"filter.k={value}")
    file = tmp_path / "run.toml"
    file.write_text(f"[filter]\nk = {value}\n")
    assert str(file) in refusal(file)
    assert len(refusal(None, f"filter.k={value}")) < 400
    assert len(refusal(file)) < 400 + len(str(file))


def test_a_value_that_is_no_utf8_is_refused_wherever_it_comes_from() -> None:
    said = "quality.rollouts: the value is not valid UTF-8"
    assert said in refusal(None, "quality.rollouts=caf\udce9")
    assert said in refusal(None, STEPSEARCH_QUALITY_ROLLOUTS="caf\udce9")


def test_many_mistakes_are_not_a_page_of_them() -> None:
    message = refusal(None, *(f"filter.x{number}=1" for number in range(50)))
    assert message.rstrip().endswith("and 47 more")
    assert "<class" not in refusal(None, "store.x=1")


def numbers(annotation: Any, metadata: list[Any]) -> Iterator[list[Any]]:
    """What bounds each number that a type holds."""
    arguments = getattr(annotation, "__args__", ())
    if annotation in {int, float}:
        yield metadata
    elif hasattr(annotation, "__metadata__"):  # Annotated
        fields = [each for each in annotation.__metadata__ if isinstance(each, FieldInfo)]
        yield from numbers(annotation.__origin__, [bound for field in fields for bound in field.metadata])
    else:
        for argument in arguments:
            yield from numbers(argument, metadata)


def test_every_number_has_bounds() -> None:
    """So that none is NaN, infinite, beyond 64 bits, or asks for all memory."""
    engines = [model for name in kinds() for model in (kind_of(name).config, kind_of(name).settings)]
    models: list[type[BaseModel]] = [RunSettings, LlmSettings, *(stage.config for stage in STAGES), *engines]
    fields = [(model, name, field) for model in models for name, field in model.model_fields.items()]
    bounds = [(model, name, each) for model, name, f in fields for each in numbers(f.annotation, f.metadata)]
    assert len(bounds) > 60
    for model, name, each in bounds:
        assert any(isinstance(bound, Le | Lt) for bound in each), (model, name)
        assert any(isinstance(bound, Ge | Gt) for bound in each), (model, name)


def test_a_run_file_that_is_a_fifo_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.toml")
    assert "is not a regular file" in refusal(tmp_path / "run.toml")
