"""How lines are logged: to stderr, for people or for machines.

In: settings. Out: the root logger, set up once a process. Never a secret, never an image.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from worker.settings import Settings


class _JSONFormatter(logging.Formatter):
    """One object a line: time, level, logger, message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logging(settings: Settings) -> None:
    """Log to stderr in the format asked for; other libraries only when they warn."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.log_format == "json":
        handler.setFormatter(_JSONFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    level = settings.log_level.upper()
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    # These log whole URLs, with queries and what is in them, so not even to who debugs.
    for telltale in ("httpx", "httpcore"):
        logging.getLogger(telltale).setLevel("WARNING")
    for noisy in ("rq", "transformers", "urllib3", "huggingface_hub"):
        logging.getLogger(noisy).setLevel(level if level == "DEBUG" else "WARNING")
