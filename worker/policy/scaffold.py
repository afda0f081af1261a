"""The text of a new policy file: a first version to fill in, or the next version of one that there is.

In: an id, or the text of a version. Out: text that is valid and has no warnings but those it had. Never a file.
"""

from __future__ import annotations

import json
import re

from worker.policy.places import read_yaml
from worker.policy.schema import Policy

#: The JSON Schema beside the policies, for editors.
SCHEMA_FILE = "policy.schema.json"
#: What makes editors with a YAML language server complete and check; from `<id>/v<N>.yaml`.
SCHEMA_LINE = f"# yaml-language-server: $schema=../{SCHEMA_FILE}"

_FIRST = """\
{schema}
#
# A policy says in plain words what is harmful. Every image is compared with every sentence below: the prompts of a
# category pull its score up; its look-alikes and the contrast pull it down. From a threshold on, something happens.
# Write short captions of what is to be seen. CLIP cannot read "no" or "without", and counts badly.
#
# Check it:        sluice policy lint {path}
# Try an image:    sluice score IMAGE --policies {directory} --policy {name}@1
# Change it later: sluice policy new {name}   (a version that is out is never edited)
policy: {quoted}
version: 1
description: What this policy is for, and for whom.

# Each sentence is put into every template, and the embeddings are averaged.
templates:
  - "{{}}"
  - a photo of {{}}

# Ordinary content: what your users really upload. Every category is weighed against these sentences.
contrast:
  - a portrait of a person
  - a group of friends outdoors
  - a plate of food
  - a cat
  - a dog
  - a car on a street
  - a room with furniture
  - a landscape with mountains
  - a page of text

categories:
  # A category becomes a name in verdicts and metrics. This one is an example: change it, and add your own.
  weapons:
    description: Firearms and knives carried as weapons. Toys and kitchen tools are look-alikes.
    # What it looks like; three to ten different ways to say it.
    prompts:
      - a pistol
      - a rifle
      - a dagger
    # Innocent things that resemble it. They count as contrast in this category, and nowhere else.
    look_alikes:
      - a water pistol
      - a kitchen knife for cooking
    # A score is a number from 0 to 1. From `review` on a person looks; from `block` on the upload is refused.
    # Either may be left out.
    thresholds: {{review: 0.5, block: 0.9}}
"""


def first_version(name: str, directory: str) -> str:
    """Return the text of version 1 of a policy.

    Args:
        name: The policy's id.
        directory: Of the policies, as the comments name it.
    """
    path = f"{directory}/{name}/v1.yaml"
    return _FIRST.format(schema=SCHEMA_LINE, path=path, directory=directory, name=name, quoted=_plain(name))


def next_version(text: str, name: str, version: int) -> str:
    """Return the text of a version as another one: its comments and its layout stay.

    Args:
        text: Of a valid policy file.
        name: The new one's id.
        version: The new one's number.

    Raises:
        ValueError: The file does not say its id and version on lines of their own.
    """
    for key, value in (("policy", _plain(name)), ("version", str(version))):
        pattern = rf"^(?P<key>{key}[ \t]*:[ \t]*)(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s#]+)(?P<rest>[ \t]*(?:#.*)?)$"
        text, count = re.subn(pattern, rf"\g<key>{value}\g<rest>", text, flags=re.MULTILINE)
        if count != 1:
            raise ValueError(f"no line `{key}: …` of its own")
    return text if "yaml-language-server:" in text else f"{SCHEMA_LINE}\n{text}"


def _plain(name: str) -> str:
    """Put quotes around a name that YAML would take for something else, such as `on` or `2024`."""
    return name if read_yaml(f"name: {name}")[0] == {"name": name} else json.dumps(name)


def schema_text() -> str:
    """Return the JSON Schema of a policy, as it is written to `SCHEMA_FILE`."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Policy.model_json_schema()
    return json.dumps(schema, indent=2) + "\n"
