"""Three example requests to try after the demo. Each one is run before it is shown."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from dataclasses import dataclass

import httpx

from kirana.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Step:
    """An example request: a POST of `body` as JSON."""

    title: str
    path: str
    body: dict[str, object]

    def curl(self, base_url: str) -> list[str]:
        """Return the curl command for this request, as a list of words."""
        return ["curl", "-s", "--json", json.dumps(self.body), base_url + self.path]


def steps(user_id: int, products: list[int]) -> list[Step]:
    """Return three steps: a list for a user, the features of `products`, and their scores."""
    return [
        Step(
            "a list for a user, with what each node of the flow did",
            "/v1/flows/for_you",
            {"context": {"user_id": user_id}, "trace": True},
        ),
        Step(
            "the titles, genres and years of some films",
            "/v1/features/get",
            {
                "entity": "product",
                "keys": {"product_id": products},
                "features": ["attrs.title", "attrs.genre", "attrs.year", "stats.share"],
            },
        ),
        Step(
            "scores of films of your choice, with the matrix that the models read",
            "/v1/infer/ranker",
            {"context": {"user_id": user_id, "product_id": products}, "return": ["matrix"]},
        ),
    ]


def try_step(step: Step, client: httpx.Client) -> str:
    """Run a step, and return its curl command as a line for the shell.

    Without curl on this machine, send the same request with `client`. Raise `Unavailable` if the
    status of the reply is not 200.
    """
    base_url = str(client.base_url).rstrip("/")
    command = step.curl(base_url)
    if shutil.which("curl"):
        with_status = [*command, "--write-out", "\n%{http_code}"]
        output = subprocess.run(with_status, capture_output=True, text=True, check=False).stdout
        text, _, status = output.rpartition("\n")
    else:
        reply = client.post(step.path, json=step.body)
        text, status = reply.text, str(reply.status_code)
    if status != "200":
        raise Unavailable(f"{shlex.join(command)} returned {status}: {text}")
    return shlex.join(command)
