"""Task files for lm-evaluation-harness with invented data: every kind of request it makes, answers
of unequal lengths, one that begins another, filters, a group with weights, a tag.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_ANIMALS = ("fox", "otter", "heron", "badger", "hedgehog", "kingfisher", "wild boar", "stoat")
_PLACES = ("by the river", "under the old bridge", "in the barley", "on the hill", "at the mill")


def story(at: int) -> dict[str, Any]:
    animal, place = _ANIMALS[at % len(_ANIMALS)], _PLACES[at % len(_PLACES)]
    number = 3 + at % 7
    choices = [
        f"sleeps {place}",
        f"sleeps {place} until the rain has gone and {number} crows have flown over it",
        "reads a newspaper",
        f"eats {number} apples, one after the other",
    ]
    return {
        "query": f"It is evening, and the {animal} comes home. The {animal}",
        "choices": choices,
        "gold": (at * 3) % 4,
        "letter": "ABCD"[(at * 3) % 4],
        "text": f"The {animal} lives {place}. Every day at noon the {animal} sleeps",
        "last": place,
        "page": " ".join(f"The {animal} saw {at + n} crows {place}." for n in range(2 + at % 30)),
        "question": f"A {animal} has {number} apples and finds {at}. How many has it?",
        "answer": f"It has {number} + {at} = {number + at} apples. #### {number + at}",
        "sentence": f"The {animal} met the crow because _ was late.",
        "who": 1 + at % 2,
        "topic": "birds" if at % 3 else "beasts",
    }


_CHOOSE: Mapping[str, Any] = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{query}}",
    "doc_to_target": "gold",
    "doc_to_choice": "choices",
    "metric_list": [{"metric": name} for name in ("acc", "acc_norm", "acc_bytes")],
    "metadata": {"version": 2.0},
}
TASKS: Mapping[str, Mapping[str, Any]] = {
    "ends": _CHOOSE,
    "ends_own_shots": {**_CHOOSE, "num_fewshot": 3, "description": "Stories of animals.\n\n"},
    "ends_same_shots": {
        **_CHOOSE,
        "num_fewshot": 3,
        "fewshot_config": {"sampler": "first_n", "split": "train"},
    },
    "ends_information": {
        **_CHOOSE,
        "metric_list": [{"metric": "acc"}, {"metric": "acc_mutual_info"}],
    },
    "ends_scores": {
        **_CHOOSE,
        "metric_list": [{"metric": "f1"}, {"metric": "mcc"}, {"metric": "brier_score"}],
        "doc_to_choice": ["no", "yes"],
        "doc_to_target": "{{gold % 2}}",
    },
    "letters": {
        **_CHOOSE,
        "doc_to_text": "{{query}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\n"
        "D. {{choices[3]}}\nAnswer:",
        "doc_to_choice": ["A", "B", "C", "D"],
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "who": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{who - 1}}",
        "doc_to_target": "was late.",
        "doc_to_choice": "{{['The animal met the crow because the animal', 'The animal met the crow"
        " because the crow']}}",
        "metric_list": [{"metric": "acc"}],
    },
    "cloze": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{text}}",
        "doc_to_target": " {{last}}",
        "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
    },
    "pages": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{page}}",
        "metric_list": [
            {"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")
        ],
    },
    "sums": {
        "output_type": "generate_until",
        "num_fewshot": 2,
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["Question:"], "do_sample": False, "max_gen_toks": 24},
        "metric_list": [
            {
                "metric": "exact_match",
                "ignore_case": True,
                "regexes_to_ignore": [",", "(?s).*#### "],
            }
        ],
        "filter_list": [
            {
                "name": "strict-match",
                "filter": [
                    {"function": "regex", "regex_pattern": "#### (\\-?[0-9\\.\\,]+)"},
                    {"function": "take_first"},
                ],
            },
            {
                "name": "flexible-extract",
                "filter": [
                    {
                        "function": "regex",
                        "group_select": -1,
                        "regex_pattern": "(-?[$0-9.,]{2,})|(-?[0-9]+)",
                    },
                    {"function": "take_first"},
                ],
            },
        ],
        "metadata": {"version": 3.0},
    },
    "birds": {**_CHOOSE, "tag": "of_a_tag", "split": "birds"},
    "beasts": {**_CHOOSE, "tag": "of_a_tag", "split": "beasts"},
}
GROUPS: Mapping[str, Mapping[str, Any]] = {
    "animals": {
        "task": ["birds", "beasts"],
        "aggregate_metric_list": [
            {"metric": "acc", "weight_by_size": True},
            {"metric": "acc_norm", "weight_by_size": False},
        ],
        "metadata": {"version": 4.0},
    },
    "unweighed": {"task": ["birds", "sums"]},
}


def write_tasks(folder: Path, n: int = 12, rows: Sequence[Mapping[str, Any]] | None = None) -> Path:
    """The files in a folder, which is returned. rows: documents in place of n invented ones."""
    import yaml

    documents = list(rows or map(story, range(n)))
    train = list(map(story, range(100, 120)))
    parts = {
        "train": train,
        "test": documents,
        "birds": [one for one in documents if one["topic"] == "birds"],
        "beasts": [one for one in documents if one["topic"] == "beasts"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in part))
    for name, task in TASKS.items():
        split = task.get("split", "test")
        files = {"train": str(folder / "train.jsonl"), "test": str(folder / f"{split}.jsonl")}
        content = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": files},
            "training_split": "train",
            "test_split": "test",
            **{key: value for key, value in task.items() if key != "split"},
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    for name, group in GROUPS.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"group": name, **group}))
    return folder


LOCAL = {**_CHOOSE, "dataset_path": "json", "test_split": "test"}
BROKEN: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "no_module": ({"process_docs": "!function absent.f"}, "No module named 'nowhere_at_all'"),
    "no_data": ({"dataset_path": "nobody/nothing"}, "is not in the cache of `datasets`"),
    "no_data_part": (
        {"dataset_path": "nobody/else", "dataset_name": "part"},
        "is not in the cache of `datasets`",
    ),
    "no_prompt": ({"doc_to_text": "{{query | no_such_filter}}"}, "no_such_filter"),
    "no_split": ({"test_split": "nowhere"}, "nowhere"),
    "no_metric": ({"metric_list": [{"mtric": "acc"}]}, "metric_list"),
    "no_argument": (
        {
            "output_type": "generate_until",
            "doc_to_choice": None,
            "generation_kwargs": {"until": ["."], "typical_p": 0.5},
            "metric_list": [{"metric": "exact_match"}],
        },
        "typical_p",
    ),
    "no_yaml": ({}, "cannot be read as a task"),
}
"""Tasks that cannot be asked, each with what is wrong in it and what must be said."""


def write_broken(folder: Path) -> Path:
    """Their files, in a folder that has the data of the others; it is returned."""
    import yaml

    for name, (changes, _) in BROKEN.items():
        content = {**LOCAL, "task": name, **changes}
        if content["dataset_path"] == "json":
            content["dataset_kwargs"] = {"data_files": {"test": str(folder / "test.jsonl")}}
        # A function is a tag of its own there, which no dump writes.
        text = yaml.safe_dump({key: one for key, one in content.items() if one is not None})
        text = text.replace("'!function absent.f'", "!function absent.f")
        (folder / f"{name}.yaml").write_text(text)
    (folder / "no_yaml.yaml").write_text("task: no_yaml\ndoc_to_text: [unclosed\n")
    (folder / "absent.py").write_text("import nowhere_at_all\n\n\ndef f(docs): return docs\n")
    return folder
