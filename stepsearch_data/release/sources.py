"""Who is to be named for each source of a release, and how it is cited."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stepsearch_data.release.licences import Origin
from stepsearch_data.release.markdown import fence, plain

_OF = {
    "musique": "MuSiQue by Trivedi, Balasubramanian, Khot and Sabharwal (https://github.com/StonyBrookNLP/musique), "
    "CC BY 4.0",
    "hotpotqa": "HotpotQA by Yang, Qi, Zhang, Bengio, Cohen, Salakhutdinov and Manning (https://hotpotqa.github.io), "
    "CC BY-SA 4.0: what holds its texts may be passed on under the same licence only",
    "2wiki": "2WikiMultihopQA by Ho, Duong Nguyen, Sugawara and Aizawa (https://github.com/Alab-NII/2wikimultihop), "
    "Apache-2.0",
}
_CHANGES = "Changed: questions were selected, split into hops, and joined with queries, search results and rollouts."
_STEPSEARCH = """\
@inproceedings{stepsearch,
  title     = {StepSearch: Igniting LLMs Search Ability via Step-Wise Proximal Policy Optimization},
  author    = {Wang, Ziliang and Zheng, Xuhui and An, Kang and Ouyang, Cijun and Cai, Jialu and Wang, Yuhang and
               Wu, Yichao},
  booktitle = {EMNLP},
  year      = {2025},
  note      = {arXiv:2505.15107}
}"""
_BIBTEX = {
    "musique": """\
@article{musique,
  title   = {MuSiQue: Multihop Questions via Single-hop Question Composition},
  author  = {Trivedi, Harsh and Balasubramanian, Niranjan and Khot, Tushar and Sabharwal, Ashish},
  journal = {Transactions of the Association for Computational Linguistics},
  year    = {2022}
}""",
    "hotpotqa": """\
@inproceedings{hotpotqa,
  title     = {HotpotQA: A Dataset for Diverse, Explainable Multi-hop Question Answering},
  author    = {Yang, Zhilin and Qi, Peng and Zhang, Saizheng and Bengio, Yoshua and Cohen, William W. and
               Salakhutdinov, Ruslan and Manning, Christopher D.},
  booktitle = {EMNLP},
  year      = {2018}
}""",
    "2wiki": """\
@inproceedings{2wikimultihopqa,
  title     = {Constructing A Multi-hop QA Dataset for Comprehensive Evaluation of Reasoning Steps},
  author    = {Ho, Xanh and Duong Nguyen, Anh-Khoa and Sugawara, Saku and Aizawa, Akiko},
  booktitle = {COLING},
  year      = {2020}
}""",
}


def attribution(found: Iterable[Origin]) -> str:
    """A line a source, as its licence asks for."""
    return "\n".join(f"- {line}" for line in dict.fromkeys(_line(origin) for origin in found))


def _line(origin: Origin) -> str:
    if origin.of == "official":
        return f"{_OF[origin.kind]}. {_CHANGES}"
    if origin.of == "sample":
        return f"The sample in {origin.kind}'s format that stepsearch-data ships: its own sentences, Apache-2.0."
    return (
        f"The publisher's own data, given in the format {origin.kind}: {plain(origin.licence)}, as the publisher says."
    )


def citation(found: Sequence[Origin]) -> str:
    """BibTeX of StepSearch and of the public datasets that are in the release."""
    kinds = {origin.kind for origin in found if origin.of == "official"}
    return fence("\n\n".join([_STEPSEARCH, *(text for kind, text in _BIBTEX.items() if kind in kinds)]), "bibtex")
