"""A program that serves the fused graph on Ray and Serve with their default settings.

It prints the URL once it serves, and ends when its standard input is closed.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path


def main(settings_file: str, port: int) -> None:
    import ray
    from ray import serve

    from kirana.graphs.serving import graph
    from kirana.serving.settings import Settings

    settings = Settings.model_validate(json.loads(Path(settings_file).read_text()))
    ray.init(
        address="local",
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        object_store_memory=256 << 20,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    # Serve's own default for `max_ongoing_requests` is 5.
    serve.run(graph(settings, {"Ingress": {"max_ongoing_requests": 5}}), name="kirana")
    print(f"http://127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    serve.shutdown()  # type: ignore[no-untyped-call]
    ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
