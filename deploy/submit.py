"""Send a job to a Ray cluster: what `make submit` runs. The variables of make come in the environment, as SUBMIT_NAME.

They are words of the job's command: neither make nor a shell of this machine runs what stands in them.
"""

from __future__ import annotations

import json
import os
import shlex
import sys

from autophagy.common.errors import without_secrets
from autophagy.tracking.lineage import code_tags


def words(name: str) -> list[str]:
    """A variable in words, quotes as in a shell.

    Raises:
        SystemExit: A quote is not closed, or the variable holds credentials.
    """
    try:
        found = shlex.split(os.environ.get(f"SUBMIT_{name}", ""))
    except ValueError as error:
        sys.exit(f"{name}: {error}")
    if without_secrets(" ".join(found)) != " ".join(found):
        sys.exit(f"{name} holds credentials, which Ray shows with the job; give them in the environment of the nodes")
    return found


def command() -> list[str]:
    """The arguments of `ray`.

    Raises:
        SystemExit: There is no job, or the store or the job's command is of no use.
    """
    recipe, job = os.environ.get("SUBMIT_RECIPE", ""), words("JOB")
    if not recipe and not job:
        sys.exit('give RECIPE=... or JOB="python -m autophagy ..."')
    job = job or ["python", "jobs/run_sweep.py", recipe, *words("ARGS")]
    if store := os.environ.get("SUBMIT_STORE"):
        if without_secrets(store) != store:
            sys.exit("STORE holds credentials, which Ray shows with the job; give them in the environment of the nodes")
        job += ["--store", store]
    about = {"recipe": recipe} | {tag: text for tag, text in code_tags().items() if tag.startswith("git.")}
    return [
        *("job", "submit", "--address", os.environ.get("SUBMIT_ADDRESS", ""), "--working-dir", "."),
        *("--metadata-json", json.dumps(about)),
        *("--runtime-env-json", json.dumps({"env_vars": {"PYTHONPATH": "platform"}})),
        *("--", *job),
    ]


if __name__ == "__main__":
    ray = sys.argv[1]
    arguments = command()
    os.environ["RAY_AUTH_MODE"] = os.environ.get("RAY_AUTH_MODE") or "token"
    os.execv(ray, [ray, *arguments])
