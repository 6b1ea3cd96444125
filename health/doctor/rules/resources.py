"""HW50x: CPU limits."""

from __future__ import annotations

from collections.abc import Iterator

from ..finding import DELETE, NOTE, Change, Found, rule
from ..model import Model
from ..units import cpu

#: One interpreter's process uses one core at most, so a limit of one or more never throttles it.
_SINGLE = frozenset({"gunicorn", "uvicorn", "hypercorn", "daphne", "flask", "node", "npm", "yarn", "pnpm", "python"})


@rule("HW501", "cpu-limit", NOTE, 7)
def cpu_limit(model: Model) -> Iterator[Found]:
    """A CPU limit makes streams and probes stand still while the node idles.

    Source: Kubernetes, "Resource Management for Pods and Containers": a CPU limit is enforced by throttling; kernel,
    "CFS Bandwidth Control": the quota is for each period of 100 ms.
    """
    for container in model.containers:
        place = container.limit("cpu")
        limit = cpu(place.text)
        if limit is None:
            continue
        server = model.server(container)
        if limit >= server.workers and server.name in _SINGLE:
            continue
        if limit < 1:
            work = limit * 100
            how = f"after {work:g} ms of work in each 100 ms all streams and probes stand still for {100 - work:g} ms"
        else:
            how = (
                f"a burst on more than {limit:g} cores uses up {limit * 100:g} ms of CPU early in each 100 ms, and"
                " then all streams and probes stand still for the rest"
            )
        request = container.place.get("resources", "requests", "cpu")
        changes = (Change(place, DELETE, ""),) if request else ()
        yield Found(
            place,
            f"{place.text}: {how}, on a node that idles, too",
            changes,
            advice="Leave the limit out; the request is what guarantees a share.",
        )
