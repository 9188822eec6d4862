"""Prefect shells around plain functions: cached and retried where they measure, neither where they record."""

import logging

# Prefect sends these lines to the run's page but leaves the level at the root's, WARNING
logging.getLogger(__name__).setLevel(logging.INFO)
