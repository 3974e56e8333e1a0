"""What to try next: three curl lines, each tried before it is shown."""

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
    """One request, as a person would type it."""

    title: str
    path: str
    body: dict[str, object]

    def curl(self, base_url: str) -> list[str]:
        return ["curl", "-s", "--json", json.dumps(self.body), base_url + self.path]


def steps(user_id: int, products: list[int]) -> list[Step]:
    """A list for somebody, the films behind some ids, and scores for films of one's choice."""
    return [
        Step(
            "a list for a user, with what each node of the flow did",
            "/v1/flows/for_you",
            {"context": {"user_id": user_id}, "trace": True},
        ),
        Step(
            "what films these are",
            "/v1/features/get",
            {
                "entity": "product",
                "keys": {"product_id": products},
                "features": ["attrs.title", "attrs.genre", "attrs.year", "stats.share"],
            },
        ),
        Step(
            "scores of films of your choice, with the matrix that the models saw",
            "/v1/infer/ranker",
            {"context": {"user_id": user_id, "product_id": products}, "return": ["matrix"]},
        ),
    ]


def try_step(step: Step, client: httpx.Client) -> str:
    """Run the line itself where there is a curl, else its request; return the line for a person.

    Raises `Unavailable` if it does not work.
    """
    base_url = str(client.base_url).rstrip("/")
    command = step.curl(base_url)
    if shutil.which("curl"):
        with_status = [*command, "--write-out", "\n%{http_code}"]
        said = subprocess.run(with_status, capture_output=True, text=True, check=False).stdout
        text, _, status = said.rpartition("\n")
    else:
        reply = client.post(step.path, json=step.body)
        text, status = reply.text, str(reply.status_code)
    if status != "200":
        raise Unavailable(f"{shlex.join(command)} gave {status}: {text}")
    return shlex.join(command)
