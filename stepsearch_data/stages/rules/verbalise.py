"""Relations in words: `Green >> performer` → "Who performed Green?"."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

_QUESTIONS = {
    "applies to jurisdiction": "Which jurisdiction does {} apply to?",
    "architect": "Who was the architect of {}?",
    "author": "Who is the author of {}?",
    "award received": "Which award did {} receive?",
    "capital of": "What is {} the capital of?",
    "cast member": "Who is a cast member of {}?",
    "cause of death": "What was the cause of death of {}?",
    "characters": "Who is a character in {}?",
    "child": "Who is a child of {}?",
    "composer": "Who composed {}?",
    "contains administrative territorial entity": "Which administrative territorial entity does {} contain?",
    "country": "In which country is {}?",
    "country of citizenship": "Of which country is {} a citizen?",
    "country of origin": "From which country does {} come?",
    "creator": "Who created {}?",
    "crosses": "What does {} cross?",
    "date of birth": "When was {} born?",
    "date of death": "When did {} die?",
    "developer": "Who developed {}?",
    "director": "Who directed {}?",
    "educated at": "Where was {} educated?",
    "employer": "Who employed {}?",
    "father": "Who is the father of {}?",
    "followed by": "What follows {}?",
    "follows": "What does {} follow?",
    "founded by": "Who founded {}?",
    "has part": "Who or what is a part of {}?",
    "headquarters location": "Where are the headquarters of {}?",
    "inception": "When was {} founded?",
    "instance of": "What kind of thing is {}?",
    "instrument": "Which instrument does {} play?",
    "licensed to broadcast to": "Which place is {} licensed to broadcast to?",
    "located in or next to body of water": "Which body of water is {} next to?",
    "located in the administrative territorial entity": "In which administrative territorial entity is {} located?",
    "located on terrain feature": "On which terrain feature is {} located?",
    "location": "Where is {} located?",
    "location of formation": "Where was {} formed?",
    "manufacturer": "Who manufactures {}?",
    "member of": "What is {} a member of?",
    "member of political party": "Which political party is {} a member of?",
    "member of sports team": "Which sports team does {} play for?",
    "mother": "Who is the mother of {}?",
    "mouth of the watercourse": "Into what does {} flow?",
    "named after": "Who or what is {} named after?",
    "occupation": "What is the occupation of {}?",
    "operator": "Who operates {}?",
    "owned by": "Who owns {}?",
    "part of": "What is {} a part of?",
    "performer": "Who performed {}?",
    "place of birth": "Where was {} born?",
    "place of burial": "Where is {} buried?",
    "place of death": "Where did {} die?",
    "position held": "Which position did {} hold?",
    "producer": "Who produced {}?",
    "publication date": "When was {} released?",
    "publisher": "Who published {}?",
    "record label": "Which record label is {} on?",
    "screenwriter": "Who wrote the screenplay of {}?",
    "shares border with": "What does {} share a border with?",
    "sibling": "Who is a sibling of {}?",
    "spouse": "Who is the spouse of {}?",
    "student of": "Whose student was {}?",
    "work location": "Where did {} work?",
}


def ask(subject: str, relation: str) -> str:
    """Write a question for the value of a relation, such as `spouse`, of a subject."""
    return _QUESTIONS.get(relation, f"What is the {relation} of {{}}?").replace("{}", subject)


def split_relation(text: str) -> tuple[str, str] | None:
    """Split MuSiQue's `subject >> relation` form; None for any other text."""
    subject, separator, relation = text.partition(">>")
    return (subject.strip(), relation.strip()) if separator else None


def as_question(text: str) -> str:
    """Write a decomposition step as a question. `#k` placeholders stay."""
    parts = split_relation(text)
    question = ask(*parts) if parts else re.sub(r"\s+([?'’,.;])", r"\1", text.strip())
    question = question if question.endswith(("?", ".")) else f"{question}?"
    return question[:1].upper() + question[1:]


def fill(text: str, answers: Sequence[str], hops: Collection[int]) -> str:
    """Put the answer of hop k (from 1) in place of `#k`, for these hops only: "the #1 hit" is no placeholder."""
    return re.sub(r"#(\d+)", lambda match: answers[int(match[1]) - 1] if int(match[1]) in hops else match[0], text)


def references(text: str) -> list[int]:
    """Return the hops that a text refers to as `#k`, ascending."""
    return sorted({int(number) for number in re.findall(r"#(\d+)", text)})
