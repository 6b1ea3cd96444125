"""The command line."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace

from .errors import CannotRun
from .finding import BREAKS, NOTE, RISKS, Finding
from .render import FORMATS, Report
from .render.report import entry_of

_SEVERITIES = {"breaks": BREAKS, "risks": RISKS, "note": NOTE}

_EPILOG = """\
examples:
  kubectl get deploy,svc,ingress,pdb,hpa -o yaml | headwater doctor
  headwater doctor -f rendered.yaml --stream-path /events --fix > repaired.yaml
  headwater doctor --url https://shop.example/events --probe-url http://10.0.3.7:8080/healthz
  kubectl describe pod shop-0 | headwater doctor --symptoms -

exit status: 0 nothing found at or above --fail-on, 1 something was, 2 it could not run"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="headwater doctor",
        description="Say what is wrong with an SSE service in Kubernetes, and repair its manifest.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    manifests = made.add_argument_group("manifests")
    manifests.add_argument(
        "-f",
        "--filename",
        action="append",
        default=[],
        metavar="FILE|FOLDER|-",
        help="may be repeated; standard input if it is a pipe",
    )
    manifests.add_argument("-R", "--recursive", action="store_true", help="look below folders, too")
    manifests.add_argument(
        "--stream-path", metavar="PATH", help="where streams are, such as /events; else it is assumed from names"
    )
    manifests.add_argument(
        "--fix", action="store_true", help="print the repaired manifest; what was done goes to standard error"
    )
    live = made.add_argument_group("live")
    live.add_argument("--url", metavar="URL", help="a stream to open")
    live.add_argument("--probe-url", metavar="URL", help="a probe to ask, alone and beside open streams")
    live.add_argument("--through", metavar="URL", help="the stream by way of the ingress, to compare with --direct")
    live.add_argument("--direct", metavar="URL", help="the same stream at the pod itself")
    live.add_argument("--streams", type=_count, default=20, metavar="N", help="streams to open beside --probe-url (20)")
    live.add_argument(
        "--patience",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="how long to watch a stream (10); 75 shows an idle time-out of 60 s",
    )
    live.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="sent with each request, such as Authorization",
    )
    symptoms = made.add_argument_group("symptoms")
    symptoms.add_argument(
        "--symptoms",
        metavar="FILE|-",
        help="text of kubectl describe pod, get events, get pod -o yaml, logs --previous",
    )
    output = made.add_argument_group("output")
    output.add_argument("--format", choices=sorted(FORMATS), default="text")
    output.add_argument(
        "--fail-on", choices=list(_SEVERITIES), default="breaks", help="exit with 1 from this severity on (breaks)"
    )
    output.add_argument("--rules", action="store_true", help="print the table of rules in Markdown, and end")
    return made


def _count(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 1000:
        raise argparse.ArgumentTypeError("0 to 1000")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 1 <= number <= 3600:
        raise argparse.ArgumentTypeError("1 to 3600 seconds")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status. Writes to standard output and standard error."""
    made = parser()
    options = made.parse_args(arguments)
    try:
        if options.rules:
            from .table import table

            print(table())
            return 0
        report = _run(made, options)
    except CannotRun as error:
        print(f"headwater doctor: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except KeyboardInterrupt:
        return 2
    except Exception as error:
        # The user cannot repair a bug, so one line with what a maintainer needs.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{os.path.basename(frame.filename)}:{frame.lineno}: {type(error).__name__}: {error}"
        print(f"headwater doctor: a fault of its own ({said}); please report it", file=sys.stderr)
        return 2
    worst = report.worst()
    return 1 if worst is not None and worst >= _SEVERITIES[options.fail_on] else 0


def _run(made: argparse.ArgumentParser, options: argparse.Namespace) -> Report:
    report = Report(colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ)
    files = list(options.filename)
    live = options.url or options.probe_url or options.through or options.direct
    if not files and not live and not options.symptoms:
        if sys.stdin is None or sys.stdin.isatty():
            raise CannotRun("nothing to examine: give -f FILE, --url or --symptoms, or pipe a manifest in (--help)")
        files = ["-"]
    if options.stream_path is not None and not options.stream_path.startswith("/"):
        raise CannotRun(f"--stream-path {options.stream_path}: a path begins with /")
    if options.fix and not files:
        raise CannotRun("--fix repairs manifests: give -f FILE, or pipe one in")
    if options.symptoms:
        from .symptoms import examine_text

        examine_text(options.symptoms, report)
    if live:
        from .live import examine_live

        examine_live(options, report)
    if files:
        if options.fix:
            return _fix(files, options, report)
        findings, notes = examine_files(files, options.recursive, options.stream_path)
        report.entries += [entry_of(finding) for finding in findings]
        report.notes += notes
    print(FORMATS[options.format](report), flush=True)
    return report


def examine_files(
    files: Sequence[str], recursive: bool = False, stream_path: str | None = None
) -> tuple[list[Finding], list[str]]:
    """Return findings and notes of manifests. Raises CannotRun."""
    from . import rules  # noqa: F401  (fills the table)
    from .finding import examine
    from .load import load
    from .model import Model

    loaded = load(files, recursive)
    model = Model(loaded.objects, stream_path)
    return examine(model), [*loaded.notes, *model.notes]


def _fix(files: Sequence[str], options: argparse.Namespace, report: Report) -> Report:
    """Print the repaired manifests; say on standard error what changed and what is left."""
    from . import rules  # noqa: F401
    from .finding import examine
    from .load import Loaded, load, take
    from .model import Model
    from .repair import repair

    loaded = load(files, options.recursive)

    def again(texts: dict[str, str]) -> Loaded:
        fresh = Loaded()
        for name, text in texts.items():
            take(name, text, fresh)
        return fresh

    repaired = repair(loaded, lambda each: examine(Model(each.objects, options.stream_path)), again)
    texts = list(repaired.texts.values())
    for number, text in enumerate(texts):
        if number and not texts[number - 1].endswith("\n"):
            sys.stdout.write("\n")
        if number and not text.lstrip().startswith("---"):
            sys.stdout.write("---\n")
        sys.stdout.write(text)
    sys.stdout.flush()
    for finding in repaired.done:
        print(f"repaired: {finding.rule.id} {finding.object.id} {finding.place.field}", file=sys.stderr)
    for finding in repaired.left:
        advice = finding.advice or "it could not be changed in this text"
        print(f"not repaired: {finding.rule.id} {finding.object.id} {finding.place.field}: {advice}", file=sys.stderr)
    report.entries = [replace(entry_of(finding)) for finding in repaired.left]
    return report
