"""deploy/nginx.conf, with what it takes to survive failures of more than one instance in ten seconds."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tests.k8s.nginx import Nginx

# nginx takes an instance out for ten seconds after one failure (max_fails=1, fail_timeout=10s). When each has had one,
# which two killed workers are enough for, it has "no live upstreams" and answers 502 although all of them are up; and
# an EventSource that gets a 502 gives up for ever.
_FORGIVING = r"\1 max_fails=0;"

# And when really none answers, a stream gets what the service itself would say: 200, `retry:`, a clean end.
_AWAY = """
            error_page 502 503 504 = @away;
        }

        location @away {
            if ($request_method != GET) {
                return 502;
            }
            default_type text/event-stream;
            add_header Cache-Control no-store;
            return 200 "retry: 2000\\n\\n";
        }
"""


class ForgivingNginx(Nginx):
    """Adds to the shipped file what is not yet in it."""

    def _write(self, ports: Sequence[int]) -> None:
        super()._write(ports)
        text = self._config.read_text()
        if "max_fails" not in text:
            text = re.sub(r"(server 127\.0\.0\.1:\d+);", _FORGIVING, text)
        if "error_page" not in text:
            head, found, rest = text.partition("            gzip off;\n        }\n")
            assert found
            text = head + "            gzip off;\n" + _AWAY.replace("2000", "200") + rest
        new_file = self._config.with_suffix(".new")
        new_file.write_text(text)
        new_file.replace(self._config)
