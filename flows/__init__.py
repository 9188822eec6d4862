"""One study a file. A module with a `STUDY` constant is a study; nothing else registers it."""

import logging

# Prefect sends these lines to the run's page but leaves the level at the root's, WARNING
logging.getLogger(__name__).setLevel(logging.INFO)
