"""The words of the synthetic world: relations, name forms, filler sentences."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

# Two lines per relation: kinds and name | noun phrase (| title of a pair), then question | fact.
RELATIONS_TABLE = """
person > place of birth > city | the city where {0} was born
In which city was {0} born? | {0} was born in the city of {o}, the recorded place of birth.
person > educated at > university | the university where {0} was educated
At which university was {0} educated? | {0} was educated at {o}, a university with an old hall.
person > employer > company | the employer of {0}
Which company is the employer of {0}? | The employer of {0} is the company {o}, says the payroll.
person > student of > person | the teacher of {0}
Who was the teacher of {0}? | {0} was for several years a student of {o}, a patient teacher.
city > country > country | the country where {0} is located
In which country is {0} located? | {0} is a city located in the country of {o}.
city > located in or next to body of water > river | the river that flows through {0}
Which river flows through {0}? | {o} is the river that flows through {0}, next to its water.
city > head of government > person | the mayor of {0}
Who is the mayor of {0}? | The mayor of {0}, as head of the local government, is {o}.
country > capital > city | the capital of {0}
Which city is the capital of {0}? | The capital of {0} is the city of {o}.
country > head of state > person | the head of state of {0}
Who is the head of state of {0}? | The head of state of {0} is {o}, elected by one vote.
river > mouth of the watercourse > city | the city at the mouth of {0}
Which city lies at the mouth of {0}? | The mouth of the watercourse {0} lies at the city of {o}.
river > origin of the watercourse > country | the country where {0} has its origin
In which country does {0} have its origin? | The origin of the watercourse {0} is in {o}, a country.
company > founded by > person | the founder of {0}
Who was the founder of {0}? | {0} was founded by {o}, the founder and first director of the firm.
company > headquarters location > city | the city where {0} has its headquarters
In which city does {0} have its headquarters? | The headquarters location of {0} is {o}, a city.
university > campus location > city | the city where {0} has its campus
In which city does {0} have its campus? | The campus location of {0} is the city of {o}.
university > rector > person | the rector of {0}
Who is the rector of {0}? | The rector of {0} is {o}, chosen by the senate.
song > performer > person | the performer of {0}
Who is the performer of {0}? | The performer of the song {0} is {o}.
song > lyrics by > person | the writer of the lyrics of {0}
Who wrote the lyrics of {0}? | The song {0} has lyrics by {o}, who wrote them in a week.
song > record label > company | the record label of {0}
Which company is the record label of {0}? | The record label of {0}, a song, is the company {o}.
film > director > person | the director of {0}
Who is the director of {0}? | The director of the film {0} is {o}.
film > filming location > city | the city where {0} was filmed
In which city was {0} filmed? | The film {0} was filmed in the city of {o}, its filming location.
film > production company > company | the production company of {0}
What is the production company of {0}? | The production company of the film {0} is {o}.
book > author > person | the author of {0}
Who is the author of {0}? | The author of the book {0} is {o}.
book > publisher > company | the publisher of {0}
Which company is the publisher of {0}? | The publisher of the book {0} is the company {o}.
book > narrative location > country | the country where {0} is set
In which country is {0} set? | The book {0} is set in the country of {o}, its narrative location.
person + person > meeting > city | the city where {0} met {1} | Meeting of {0} and {1}
In which city did {0} meet {1}? | At their first meeting {0} went to meet {1} in the city of {o}.
person + city > lectures > university | the university where {0} lectured when in {1} | {0} in {1}
At which university did {0} lecture when in {1}? | When in {1}, {0} used to lecture at {o}.
company + company > plant > city | the city where {0} and {1} share a plant | Plant of {0} and {1}
In which city do {0} and {1} share a plant? | {0} and {1} share a plant in the city of {o}.
country + country > treaty > city | the city where {0} and {1} made peace | Peace of {0} and {1}
In which city did {0} and {1} make peace? | The city where {0} and {1} met to make peace is {o}.
city + city > canal > river | the river crossed by the canal from {0} to {1} | Canal of {0} and {1}
Which river does the canal from {0} to {1} cross? | The canal from {0} to {1} has to cross {o}.
"""

# Per kind, the ending of its words and then its name forms. Endings have no vowel, and no onset ends with
# another one. So the words of two entities differ even as parts of words.
NAMES = {
    "person": "s|Alda {}|Brin {}|Corva {}|Elsin {}|Fenna {}|Hild {}|Jorun {}|Mirel {}|Wim {}",
    "city": "n|{}",
    "country": "nd|{}",
    "river": "r|River {}",
    "company": "x|{} Industries|{} Motors|{} Holdings|{} Press|{} Works",
    "university": "l|{} University|University of {}",
    "song": "m|{} Serenade|Ballad of {}|Lights of {}|Goodbye, {}",
    "film": "k|The {} Affair|Return to {}|Midnight in {}|Chasing {}",
    "book": "t|The {} Chronicle|Letters from {}|A Winter in {}|The Gardens of {}",
}
FILLERS_TABLE = """
The {a} {t} was restored in {y} after {n} months of {b} work by volunteers and their friends.
A {a} survey from {y} counted {n} visitors, most of them drawn by the {b} {t} near the entrance.
Critics of the period praised the {a} {t}, although {n} letters to the editor called it {b}.
Since {y} a {a} committee of {n} members has looked after the {t} and its {b} surroundings.
The {b} {t}, lost for {n} years, turned up again in {y} behind a {a} wall in the cellar.
Every spring the {a} {t} is shown to about {n} guests, a {b} custom that goes back to {y}.
An inventory of {y} mentions {n} crates, a {a} {t} and several {b} objects of unknown use.
Newspapers reported in {y} that the {b} {t} had cost {n} coins more than the {a} plan allowed.
Of the {n} surviving sketches, only one shows the {a} {t} in the {b} condition it had in {y}.
The {a} archive holds {n} pages on the subject, among them a {b} drawing of a {t} dated {y}.
It took {n} days in {y} to move the {b} {t}, a task described at the time as {a} and thankless.
After the {a} storm of {y} the {t} was measured again and found to be {n} paces long and {b}.
Opinions on the {b} {t} remain divided, and a {a} debate in {y} ended after {n} minutes.
A {a} anniversary in {y} brought {n} speeches, a {b} supper and a small {t} as a souvenir.
"""
LEXICON = """
b d f g j k l m n p r s t v w z ch ph sh th
person city song person company film country person university book city river
bright calm careful coarse delicate distant fragile gentle grand hollow humble lively modest \
noisy pale plain proud quiet rare rough rustic sober solemn splendid steep strange sturdy vivid
balcony banner barometer bell bench bridge carpet carriage clock column compass fence fountain \
gate ladder lamp map mirror mosaic pavilion pulley roof staircase stove tapestry tunnel wagon
"""


class Relation(NamedTuple):
    """A relation of one kind of entity, or of a pair of kinds, and its texts."""

    subjects: tuple[str, ...]
    name: str
    object: str
    noun: str
    question: str
    fact: str
    title: str


def _relations(lines: Iterator[str]) -> Iterator[Relation]:
    for head, body in zip(lines, lines, strict=True):
        signature, noun, *title = head.split(" | ")
        subjects, name, value = signature.split(" > ")
        kinds = tuple(subjects.split(" + "))
        yield Relation(kinds, name, value, noun, *body.split(" | "), *title or ["{0}"])


RELATIONS = list(_relations(iter(RELATIONS_TABLE.strip().splitlines())))
ONSETS, CYCLE, ADJECTIVES, THINGS = (line.split() for line in LEXICON.strip().splitlines())
FILLERS = FILLERS_TABLE.strip().splitlines()
SYLLABLES = [onset + vowel for onset in ONSETS for vowel in "aeiou"]


class Frame:
    """The cycle of entity kinds that a world repeats, and the relations among them.

    A position in the cycle is a `slot`. `facts` are the (slot, relation) of one cycle, and `first` the index of
    each slot's first fact.
    """

    def __init__(self, kinds: Iterable[str] = NAMES) -> None:
        admitted = set(kinds)
        relations = [r for r in RELATIONS if {*r.subjects, r.object} <= admitted]
        self.cycle = [kind for kind in CYCLE if kind in admitted]
        self.of_kinds = {key: [r for r in relations if r.subjects == key] for key, *_ in relations}
        self.places = {kind: [i for i, other in enumerate(self.cycle) if other == kind] for kind in admitted}
        self.facts = [(slot, r) for slot, kind in enumerate(self.cycle) for r in self.of_kinds.get((kind,), ())]
        self.first = [sum(other < slot for other, _ in self.facts) for slot in range(len(self.cycle))]

    def walks(self, hops: int) -> int:
        """Count the chains of this many facts that begin in one cycle."""

        def onward(kind: str, left: int) -> int:
            return sum(onward(r.object, left - 1) for r in self.of_kinds.get((kind,), ())) if left else 1

        return sum(onward(kind, hops) for kind in self.cycle)
