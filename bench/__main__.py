"""`python -m bench`."""

import signal

from bench.run import main

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # of `timeout`: stop the servers, write the report
    raise SystemExit(main())
