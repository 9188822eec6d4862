"""Prefect shells around plain functions: cached and retried where they measure, neither where they record."""
