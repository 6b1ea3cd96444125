"""Erase a channel, and end streams on every worker: what the right ``manage`` is for."""

from __future__ import annotations

import json
import logging
import time
from typing import Final, NamedTuple

from werkzeug.wrappers import Request

from ..auth.bearer import PARAMETER
from ..auth.revoked import NOTE_KIND, REVOKED_SECONDS, subject_name
from ..events.markers import own_event
from ..events.model import format_id
from ..events.names import CONTROL_CHANNEL
from ..log import LogUnavailable
from ..observe.request_id import GIVEN
from ..runtime.cooperation import offload
from ..streams.control import REVOKE
from .access import allowed
from .answers import check_log
from .problems import Problem
from .query import check_query, checked_channel, checked_selector, single_value
from .service import Service

logger = logging.getLogger("headwater")

MAX_SUBJECT: Final = 1024  # characters

# A misspelt parameter must not end more streams than were meant. (A token in the URL is refused by name.)
_KNOWN: Final = frozenset({"subject", "channel", "request", PARAMETER})


def erase_channel(service: Service, request: Request, channel: str) -> str:
    """Erase a channel, and return the answer of ``DELETE /events/<channel>``.

    Raises the errors that :func:`sse.web.answers.refusal` knows.
    """
    check_log(service, request)
    checked_channel(channel)
    grant = allowed(service, request, "manage", (channel,))
    try:
        erased = erase(service, channel)
    except LogUnavailable as error:
        service.warn_of_refusals(error)
        headers = {"Retry-After": str(max(1, round(error.retry_after)))}
        detail = {
            "no": "the log cannot be written now; nothing was erased, so repeat the request",
            "unknown": "the log did not confirm in time, so the events may still be there, or bytes of them; repeat "
            "the request until it is answered with 200",
        }
        raise Problem(503, detail[error.stored], headers=headers, stored=error.stored) from None
    logger.info("%s erased %d events of %s, through %s", grant.subject, erased.erased, channel, erased.through)
    return json.dumps(erased._asdict()) + "\n"


class Erased(NamedTuple):
    """How many events were removed, and the id through which all are gone."""

    erased: int
    through: str


def erase(service: Service, channel: str) -> Erased:
    """Remove a channel's events from the log, and open the channel again. May take seconds. Raises LogUnavailable.

    Its runs that have ended are forgotten: their keys must not lead to events that are gone.
    """
    done = offload(service.log.erase, channel)
    service.runs.forget(channel)
    return Erased(done.events, format_id(done.through))


def end_streams(service: Service, request: Request) -> str:
    """End streams on all workers, and return the answer of ``DELETE /streams``.

    Raises the errors that :func:`sse.web.answers.refusal` knows.
    """
    check_log(service, request)
    check_query(request)
    if not _KNOWN.issuperset(request.args):
        raise Problem(400, "the parameters are subject, channel and request, and no others")
    subject, channel, request_id = (single_value(request, name) for name in ("subject", "channel", "request"))
    given = [value for value in (subject, channel, request_id) if value is not None]
    if not given or "" in given:
        raise Problem(400, "say whose streams: ?subject=, ?channel= or ?request=, each with a value")
    if subject and len(subject) > MAX_SUBJECT:
        raise Problem(400, f"subject: a subject has at most {MAX_SUBJECT} characters", field="subject")
    if channel:
        checked_selector(channel)
    if request_id and not GIVEN.fullmatch(request_id):
        raise Problem(400, "request: this is no request id", field="request")
    # A subject and a request may have streams of any channels.
    concerned = channel if channel and not subject and not request_id else "*"
    grant = allowed(service, request, "manage", (concerned,))
    position = revoke(service, subject, channel, request_id)
    logger.info("%s ended streams: subject %s, channel %s, request %s", grant.subject, subject, channel, request_id)
    return json.dumps({"id": format_id(position)}) + "\n"


def revoke(service: Service, subject: str | None, channel: str | None, request_id: str | None = None) -> int:
    """End the streams to which all of these apply, on every worker; return the control record's position.

    subject: also refuse the tokens of this subject that were issued before now, for a day. Raises LogUnavailable.
    """
    at = time.time_ns() // 1_000_000
    content: dict[str, str | int] = {"at": at}
    if subject:
        content["subject"] = name = subject_name(subject)
        # First, so that a stream that this ends cannot return before its token is refused.
        offload(service.log.put_note, NOTE_KIND, name, str(at), REVOKED_SECONDS)
        service.revoked.add(name, at)
    if channel:
        content["channel"] = channel
    if request_id:
        content["request"] = request_id
    (position,) = service.log.append([own_event(CONTROL_CHANNEL, REVOKE, json.dumps(content))])
    return position
